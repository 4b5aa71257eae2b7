"""The alias as it is read without MLflow is what MLflow's client says; and of two who move it at once one wins, the other says so."""

from __future__ import annotations

import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import pytest

from flows.promote import promote_candidate
from tasks.contract.params import StageFailed
from tasks.engine import registry, sqlite_files
from tasks.engine.artifact import Artifact, Store
from tasks.engine.champion import CHAMPION
from tasks.engine.registry_alias import Alias, NoRegistry, _by_client, read_alias
from tasks.road import ROAD
from tests.services.servers import mlflow_server

NAME = "cairn-agent"


@pytest.fixture
def uri(mlflow_uri: str) -> str:
    return mlflow_uri


def client_of(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(uri, registry_uri=uri)


def tracker_of(uri: str) -> Any:
    return SimpleNamespace(mlflow=SimpleNamespace(client=client_of(uri)), flush=lambda: True)


def version(client: Any, **tags: str) -> str:
    if not client.search_registered_models(filter_string=f"name = '{NAME}'"):
        client.create_registered_model(NAME)
    model = client.create_logged_model("0", NAME)
    return str(client.create_model_version(NAME, source=f"models:/{model.model_id}", model_id=model.model_id, tags=tags).version)


def both(uri: str, expected: str) -> Alias:
    """What is read, which is what MLflow's client says."""
    found = read_alias(uri, NAME, "champion", expected)
    assert found == _by_client(uri, NAME, "champion", expected)
    return found


def test_it_is_what_the_client_says(uri: str) -> None:
    assert both(uri, "1") == Alias()
    client = client_of(uri)
    one, two = version(client, **{"cairn.artifact": "a.dir"}), version(client)
    assert both(uri, one) == Alias("", {}, True) and both(uri, "") == Alias("", {}, False)
    client.set_registered_model_alias(NAME, "champion", one)
    assert both(uri, two) == Alias(one, {"cairn.artifact": "a.dir"}, True) and both(uri, one).identity == "a.dir"
    client.delete_model_version(NAME, one)
    assert both(uri, one) == Alias("", {}, False), "MLflow takes the alias of a deleted version away"
    with sqlite3.connect(uri.removeprefix("sqlite:///")) as tables:  # a store that does not
        tables.execute("INSERT INTO registered_model_aliases (name, alias, version) VALUES (?, 'champion', ?)", (NAME, int(one)))
    assert both(uri, one) == Alias(one, {}, False) and both(uri, one).identity == ""


def test_a_database_that_is_not_there_yet_or_empty_has_none(tmp_path: Path) -> None:
    assert read_alias(f"sqlite:///{tmp_path}/no.db", NAME, "champion", "1") == Alias()
    (tmp_path / "empty.db").touch()
    assert read_alias(f"sqlite:///{tmp_path}/empty.db", NAME, "champion", "1") == Alias()
    assert [path.name for path in tmp_path.iterdir()] == ["empty.db"]


def test_a_locked_or_damaged_database_is_told(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_files, "PATIENCE", 0.05)
    other = sqlite3.connect(uri.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(NoRegistry, match=r"mlflow\.db cannot be read \(database is locked\)"):
        read_alias(uri, NAME, "champion", "")
    other.execute("ROLLBACK")
    other.close()
    Path(uri.removeprefix("sqlite:///")).write_bytes(b"no database" * 100)
    with pytest.raises(NoRegistry, match=r"cannot be read \(file is not a database\)"):
        read_alias(uri, NAME, "champion", "")


def test_one_at_a_time_and_what_a_killed_process_left_ends(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "WAIT", 0.2)
    client, tracker = client_of(uri), tracker_of(uri)
    version(client)
    said = pytest.raises(StageFailed, match="somebody else has been moving an alias of cairn-agent")
    with registry.alone(tracker, NAME), said, registry.alone(tracker_of(uri), NAME):
        raise AssertionError("two at once")
    client.set_registered_model_tag(NAME, "cairn.moving.dead", "1000000000")
    with registry.alone(tracker, NAME):
        assert [tag.partition(".moving.")[0] for tag in client.get_registered_model(NAME).tags] == ["cairn"]
    assert client.get_registered_model(NAME).tags == {}


def test_a_version_is_there_until_it_is_deleted(uri: str) -> None:
    client, tracker = client_of(uri), tracker_of(uri)
    one = version(client)
    assert registry.has_version(tracker, NAME, one) and not registry.has_version(tracker, NAME, "9")
    client.delete_model_version(NAME, one)
    assert not registry.has_version(tracker, NAME, one)


# --- two promoters -----------------------------------------------------------------------------------------------------


def project(folder: Path) -> SimpleNamespace:
    """A project of its own: state, ledger, file of the champion."""
    (folder / "params").mkdir(parents=True)
    (folder / CHAMPION).write_text("# why\nchampion: none\n")
    return SimpleNamespace(folder=folder, store=Store(folder / ".cairn"))


def promoted(one: Any, name: str, uri: str) -> dict[str, Any]:
    """Carry out that `name` is to be champion where there is none."""
    model, decision = one.folder / name, one.folder / f"{name} decision"
    (model / "model").mkdir(parents=True)
    (model / "model/weights").write_text(name)
    decision.mkdir()
    verdict = {"candidate": name, "decision": "promote", "reason": "All hold.", "gates": [], "champion": None}
    (decision / "decision.json").write_text(json.dumps(verdict))
    shared = SimpleNamespace(promote=SimpleNamespace(model=NAME, approval="auto", ledger="", moved_by_hand="tell"))
    settings = SimpleNamespace(project=one.folder, shared=shared, road=ROAD)
    plan = SimpleNamespace(store=one.store, settings=settings, experiment=False, run_key="0" * 16, watch=lambda *given: None)
    run: Any = SimpleNamespace(plan=plan, tracker=tracker_of(uri), promotion={}, computed={"decide"}, note=lambda text: None)
    promote_candidate(run, Artifact("decide", "-", one.store.put(decision)), Artifact("merge", name, one.store.put(model)))
    found: dict[str, Any] = run.promotion
    return found


def check_two_at_once(uri: str, projects: list[Any], monkeypatch: pytest.MonkeyPatch, wait: bool) -> None:
    """wait: both have seen that there is no champion, and registered their candidate, before either moves the alias."""
    barrier = Barrier(2)

    def register(tracker: Any, name: str, folder: Path, about: dict[str, str]) -> str:
        made = version(tracker.mlflow.client, **about)
        if wait:
            barrier.wait(60)
        return made

    monkeypatch.setattr(registry, "register", register)
    monkeypatch.setattr("flows.model_card.about_version", lambda plan, decision, candidate, verdict, tags: tags)
    client_of(uri).create_registered_model(NAME)
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(promoted, projects, ("a", "b"), (uri, uri)))
    won = [one for one in said if one["outcome"] == "promoted"]
    lost = [one for one in said if one["outcome"] == "not promoted"]
    assert len(won) == len(lost) == 1, said
    assert both(uri, "").version == won[0]["version"]
    assert client_of(uri).get_registered_model(NAME).tags == {}
    assert ("somebody else was first" if wait else "decided against no champion") in lost[0]["reason"]


def test_of_two_projects_that_share_a_registry_one_wins(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_two_at_once(uri, [project(tmp_path / "one"), project(tmp_path / "two")], monkeypatch, wait=True)


def test_of_two_promoters_of_one_project_one_wins(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = project(tmp_path / "one")
    check_two_at_once(uri, [one, one], monkeypatch, wait=False)


@pytest.mark.services
def test_of_two_at_a_tracking_server_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with mlflow_server(tmp_path / "server") as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert both(address, "1") == Alias("", {}, False)
        check_two_at_once(address, [project(tmp_path / "one"), project(tmp_path / "two")], monkeypatch, wait=True)
        assert both(address, "1").version and both(address, "1").identity


def test_mlflow_takes_every_name_that_params_may_have() -> None:
    """Of a registered model, of the logged model behind it, and in a URI; what it refuses is refused before anything is trained."""
    from mlflow.store.artifact.utils.models import _parse_model_uri
    from mlflow.utils.validation import _validate_logged_model_name, _validate_model_name

    from tasks.engine.shared_params import Promote

    def good(name: str) -> bool:
        try:
            return Promote(model=name).model == name
        except ValueError:
            return False

    names = [name for one in map(chr, range(32, 256)) if good(name := f"a{one}b")]
    assert len(names) > 150 and "a-b" in names and not good("agent.v2")
    for name in names:
        _validate_logged_model_name(name)
        _validate_model_name(name)
        assert _parse_model_uri(f"models:/{name}/3").name == _parse_model_uri(f"models:/{name}@champion").name == name
