"""Who a server is, asked before a stage computes: noted, compared, taken when told; nothing is written for an experiment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.model_checks import Asking, _may_be_cached, write_down
from infra.stub import Stub, running
from tasks.contract.params import BadInput
from tasks.engine import roles_lock
from tasks.engine.explain import remember
from tasks.engine.job import job_of
from tasks.engine.param_files import ROLES_LOCK
from tasks.engine.plan import Plan
from tasks.engine.preflight import interview
from tasks.engine.settings import load
from tasks.engine.shared_params import ROLES
from tests.conftest import Project, make_project


@pytest.fixture(scope="module")
def server() -> Iterator[Stub]:
    with running() as found:
        yield found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("asking") / "project")


@pytest.fixture
def project(place: Project, server: Stub) -> Project:
    (place.folder / ROLES_LOCK).write_text(roles_lock.text({}))
    behind(server, "one")
    return place


def behind(server: Stub, weights: str) -> None:
    """Put a model behind the name."""
    interview._known.clear()
    server.turn(models={"small": {"root": f"/models/{weights}"}})


def plan(project: Project, state: Path, url: str, experiment: bool = False, **roles: Any) -> Plan:
    player = {"backend": "openai_compatible", "base_url": url, "model": "small"}
    wanted = roles or {"human": {}}
    overrides = [(f"roles.{role}", {**player, **more}) for role, more in wanted.items()]
    return Plan.open(load(project.folder, "smoke", overrides), state, experiment=experiment)


def noted(project: Project) -> Any:
    return roles_lock.read(project.folder)["human"]


def test_who_answered_is_noted_before_a_key_counts(project: Project, server: Stub, tmp_path: Path) -> None:
    first = plan(project, tmp_path, server.url)
    inputs = dict.fromkeys(first.stages["rl"].inputs, "0" * 32)
    unknown = job_of(first, "rl", inputs).key.digest
    asked = Asking().before(first, ["rl"])
    assert noted(project) is None, "nothing is written before it is known that the run may go on"
    after = write_down(asked)
    assert noted(project) == {"human": {"asked": "small", "answered": "small", "root": "/models/one"}}
    assert set(roles_lock.read(project.folder)) == {*ROLES}
    keys = [job_of(one, "rl", inputs).key.digest for one in (asked, after, plan(project, tmp_path, server.url))]
    assert len({*keys}) == 1 and unknown not in keys
    (project.folder / ROLES_LOCK).write_text(roles_lock.text({}))
    assert job_of(plan(project, tmp_path, server.url), "rl", inputs).key.digest == keys[0], (
        "params that come back: this machine remembers"
    )
    assert job_of(after, "rl", inputs).key.digest == unknown, "a file that is changed under a run is seen"


def test_another_model_is_refused_with_both_names_and_taken_when_told(project: Project, server: Stub, tmp_path: Path) -> None:
    write_down(Asking().before(plan(project, tmp_path, server.url), ["rl"]))
    behind(server, "two")
    now = plan(project, tmp_path, server.url)
    said = r'roles\.human: behind \'small\' at .* is now root "/models/two", but params/roles\.lock has root "/models/one".*--refresh-models'
    with pytest.raises(BadInput, match=said):
        Asking().before(now, ["rl"])
    other = plan(project, tmp_path, server.url, experiment=True)
    write_down(Asking(accept=True).before(other, ["rl"]))
    assert noted(project)["human"]["root"] == "/models/one", "an experiment leaves the workspace's params alone"
    write_down(Asking(accept=True).before(now, ["rl"]))
    assert noted(project)["human"]["root"] == "/models/two"
    write_down(plan(project, tmp_path, server.url, human={"backend": "scripted"}))
    assert noted(project) is None


def test_only_who_will_be_asked_must_be_there(project: Project, server: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The human's server is gone: a stage that needs it is refused, one that may need it is told of, others do not care."""
    monkeypatch.setattr(interview, "PAUSE", 0.01)
    told: list[str] = []
    asking = Asking(tell=lambda player, note: told.append(f"{player}: {note}"))
    now = plan(project, tmp_path, server.url, judge={}, human={"base_url": "http://127.0.0.1:9/v1"})
    with pytest.raises(BadInput, match=r"roles\.human: http://127\.0\.0\.1:9/v1 cannot be reached"):
        asking.before(now, ["evaluate"])
    assert asking.before(now, ["critique"]) is now and not told
    after = asking.before(now, ["critique"], ["evaluate"])
    assert len(told) == 1 and "human: small at http://127.0.0.1:9/v1: http://127.0.0.1:9/v1 cannot be reached" in told[0]
    assert roles_lock.in_force(after.settings)["human"] is None


def test_a_server_that_is_gone_is_told_once_where_it_is_said(
    project: Project, server: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interview, "PAUSE", 0.01)
    gone = "http://127.0.0.1:9/v1"
    now = plan(project, tmp_path, gone, judge={}, human={})
    told = f"{gone} cannot be reached"
    with pytest.raises(BadInput) as caught:
        Asking().before(now, ["generate", "evaluate"])
    assert len(str(caught.value).splitlines()) == 1
    assert all(f"roles.{role}" in str(caught.value).partition(told)[0] for role in ("judge", "human"))
    roles = {"backend": "openai_compatible", "base_url": gone, "model": "small"}
    file = project.folder / "project.yaml"
    file.write_text(json.dumps({"name": "shop", "model": "shop", "worlds": ["shop.world:Shop"], "roles": roles}))  # JSON is YAML
    try:
        with pytest.raises(BadInput) as caught:
            Asking().before(now, ["generate", "evaluate"])
    finally:
        file.unlink()
    assert str(caught.value).startswith(f"project.yaml: roles: {told}") and len(str(caught.value).splitlines()) == 1


def test_a_spent_budget_goes_on_with_kept_answers_of_a_known_model(project: Project, server: Stub, tmp_path: Path) -> None:
    now = plan(project, tmp_path, server.url)
    tree = {**now.settings.tree, "budget": {"max_tokens": 1}}
    spent = replace(now, settings=replace(now.settings, tree=tree))
    with pytest.raises(BadInput, match=r"roles\.human: 'small' was never asked who it is, .* budget\.max_tokens = 1"):
        Asking().before(spent, ["rl"])
    known = roles_lock.noting(spent.settings, {"human": {"asked": "small", "root": "/models/one"}})
    interview._known.clear()
    assert roles_lock.in_force(Asking().before(replace(spent, settings=known), ["rl"]).settings)["human"]


def test_a_stage_that_may_turn_out_cached_is_told_apart(project: Project, server: Stub, tmp_path: Path) -> None:
    """Its inputs are still to be made: it is a hit if they come out as they did, and is none once its own params have changed."""
    now = write_down(Asking().before(plan(project, tmp_path, server.url), ["rl"]))
    job = job_of(now, "rl", dict.fromkeys(now.stages["rl"].inputs, "0" * 32))
    assert not _may_be_cached(now, "rl"), "it never ran"
    now.store.record(job.key, "1" * 32 + ".dir", {"figures": {}})
    remember(now, job)
    hit = pytest.MonkeyPatch()
    hit.setattr(type(now.store), "has", lambda *_, **__: True)
    try:
        assert _may_be_cached(now, "rl")
        assert not _may_be_cached(plan(project, tmp_path, server.url, human={"temperature": 0.5}), "rl")
    finally:
        hit.undo()


def test_a_contender_is_interviewed_before_an_evaluation_and_no_other_stage(project: Project, server: Stub, tmp_path: Path) -> None:
    now = plan(project, tmp_path, server.url, contender={})
    inputs = dict.fromkeys(now.stages["evaluate"].inputs, "0" * 32)
    unknown = job_of(now, "evaluate", inputs).key.digest
    assert Asking().before(now, ["sft", "rl", "decide"]) is now
    asked = write_down(Asking().before(now, ["evaluate"]))
    assert roles_lock.read(project.folder)["contender"] == {"contender": {"asked": "small", "answered": "small", "root": "/models/one"}}
    keys = {job_of(one, "evaluate", inputs).key.digest for one in (asked, plan(project, tmp_path, server.url, contender={}))}
    assert len(keys) == 1 and unknown not in keys, "who answered is part of the key"
    interview._known.clear()
    server.turn(parser=False)
    try:
        with pytest.raises(BadInput, match=r"roles\.contender: .*tool-call-parser"):
            Asking().before(now, ["evaluate"])
    finally:
        server.turn(parser=True)
