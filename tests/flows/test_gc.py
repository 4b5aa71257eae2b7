"""`cairn gc`: what is named survives, with all that it was made of; the rest goes, is said, and goes once."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from flows import gc
from flows.cli import main
from flows.doctor import remotes
from flows.gc import garbage, history, references
from flows.gc.references import Wish
from flows.ledger import Ledger, signed
from flows.run import note_checkout
from tasks.contract.params import BadInput, StageFailed
from tasks.engine.explain import remember
from tasks.engine.job import job_of
from tasks.engine.journal import Journal
from tasks.engine.key import Key
from tasks.engine.locks import FOLDER, lock, using
from tasks.engine.plan import Plan
from tasks.engine.produce import WHOSE
from tasks.engine.registry_alias import NoRegistry
from tasks.engine.settings import load
from tasks.players.openai_compatible.cache import Cache, Paid
from tasks.worlds import UNSEEN
from tests.conftest import Project, make_project
from tests.engine.test_artifact import folder


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path / "project")


@pytest.fixture
def plan(project: Project, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A project whose results are all old enough to go, without MLflow."""
    monkeypatch.setattr(references, "RECENT", 0.0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project.folder / '.cairn/mlflow.db'}")
    return Plan.open(load(project.folder), project.folder / ".cairn")


def made(plan: Plan, tmp_path: Path, name: str, text: str = "", **parts: Any) -> str:
    """A result of this name in the store; returns its identity."""
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    identity = plan.store.put(folder(tmp_path / "out", **{"own": text or name, "shared": "the same in all"}))
    plan.store.record(Key({"stage": "sft", "inputs": {}, "name": name, **parts}), identity, {"read": []})
    return identity


def look(plan: Plan, wish: Wish = Wish()) -> garbage.Garbage:
    with gc.to_look_at(plan, wish) as found:
        return found


def delete(plan: Plan, wish: Wish = Wish()) -> garbage.Garbage:
    with gc.to_delete(plan, wish) as found:
        gc.delete(plan, found)
    return found


def who(found: garbage.Garbage) -> dict[str, str]:
    """Identity -> why it is kept."""
    return {one.identity: one.why for one in found.kept}


def lock_file(*identities: str) -> str:
    outs = {f"s{number}": {"cmd": "x", "outs": [{"path": f"data/{one}", "md5": one}]} for number, one in enumerate(identities)}
    return yaml.safe_dump({"schema": "2.0", "stages": outs})


def left(plan: Plan, *identities: str) -> list[bool]:
    return [plan.store.has(one, verify=True) for one in identities]


# --- what is named survives ---


def test_what_the_params_find_and_its_inputs_survive(plan: Plan, tmp_path: Path) -> None:
    job = job_of(plan, "worlds", {})
    mine = plan.store.put(folder(tmp_path / "made", **{"shop/policy.md": "be kind"}))
    plan.store.record(job.key, mine, {"read": []})
    remember(plan, job)
    plan.store.view(mine)
    other = made(plan, tmp_path, "old")
    plan.store.view(other)
    found = look(plan)
    assert [one.identity for one in found.results] == [other] and found.views == [other] and who(found) == {mine: references.NOW}
    assert len(found.objects) == 3 and left(plan, mine, other) == [True, True], "only looked"
    assert found.freed > 0
    delete(plan)
    assert left(plan, mine, other) == [True, False]
    assert not (plan.store.state / "views" / other).exists() and (plan.store.state / "views" / mine).is_dir()
    assert plan.store.find(job.key) and len(list((plan.store.state / "keys").iterdir())) == 1
    assert look(plan).empty


def test_what_git_can_go_back_to_survives(plan: Plan, project: Project, tmp_path: Path) -> None:
    refs = {
        "branch": "refs/heads/side",
        "tag": "refs/tags/v1",
        "experiment": "refs/exps/ab/cdef/tame-lion",
        "experiment queued last": "refs/exps/celery/stash",
        "experiment that failed": "refs/exps/celery/failed",
        "remote branch": "refs/remotes/origin/x",
        "commit": "",
    }
    other, wanted = made(plan, tmp_path, "other"), {name: made(plan, tmp_path, name) for name in refs}
    for name, ref in refs.items():
        (project.folder / "dvc.lock").write_text(lock_file(wanted[name]))
        project.git("add", "-f", "dvc.lock")
        project.git("commit", "-q", "-m", name)
        if ref:
            project.git("update-ref", ref, "HEAD")
            project.git("reset", "-q", "--hard", "HEAD~1")
    project.git("rm", "-q", "dvc.lock")
    project.git("commit", "-q", "-m", "without it")
    project.git("reflog", "expire", "--expire=now", "--all")
    found = delete(plan)
    assert left(plan, other, *wanted.values()) == [False, *[True] * len(refs)]
    assert who(found) == dict.fromkeys(wanted.values(), references.LOCKS)


@pytest.mark.parametrize("ref", ["refs/stash", "refs/exps/celery/stash"])
def test_what_was_stashed_or_queued_before_the_last_survives(plan: Plan, project: Project, tmp_path: Path, ref: str) -> None:
    """Of stashes, which DVC's queue is made of, a ref has the last one alone; the others are in its reflog."""
    first, second, other = (made(plan, tmp_path, name) for name in ("first", "second", "other"))
    for text in (lock_file(other), lock_file(first), lock_file(second)):
        (project.folder / "dvc.lock").write_text(text)
        if text == lock_file(other):
            project.git("add", "-f", "dvc.lock")
            project.git("commit", "-q", "-m", "before")
        else:
            stash = project.git("stash", "create").stdout.strip()  # not staged: it stands in the commit of the stash alone
            project.git("update-ref", "--create-reflog", "-m", "queued", ref, stash)
    project.git("reset", "-q", "--hard", "HEAD~1")
    project.git("reflog", "expire", "--expire=now", "HEAD")
    project.git("reflog", "expire", "--expire=now", "refs/heads/" + project.git("branch", "--show-current").stdout.strip())
    delete(plan)
    assert left(plan, first, second) == [True, True], "the stash is made on a commit that names the other one too"


def test_what_is_not_committed_survives(plan: Plan, project: Project, tmp_path: Path) -> None:
    """In the workspace, the index, other worktrees (in their index alone, too), experiments of DVC's in folders of their own."""
    project.git("worktree", "add", "-q", "--detach", str(tmp_path / "tree"))
    places = (
        "index",
        "tree index",
        "dvc.lock",
        "tables/some.csv.dvc",
        "params/bank.json",
        ".dvc/tmp/exps/standalone/tmp1/dvc.lock",
        "tree",
    )
    other, wanted = made(plan, tmp_path, "other"), {place: made(plan, tmp_path, place) for place in places}
    for place in places:
        root = tmp_path / "tree" if place.startswith("tree") else project.folder
        file = root / ("dvc.lock" if "/" not in place else place)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(lock_file(wanted[place]))
        if place.endswith("index"):
            project.git("-C", str(root), "add", "-f", "dvc.lock")
    delete(plan)
    assert left(plan, other, *wanted.values()) == [False, *[True] * len(places)]


def test_what_only_another_worktree_has_checked_out_survives(plan: Plan, project: Project, tmp_path: Path) -> None:
    wanted, other = made(plan, tmp_path, "wanted"), made(plan, tmp_path, "other")
    project.git("worktree", "add", "-q", "--detach", str(tmp_path / "tree"))
    (tmp_path / "tree/dvc.lock").write_text(lock_file(wanted))
    for command in (["add", "-f", "dvc.lock"], ["commit", "-q", "-m", "aside"], ["update-index", "--force-remove", "dvc.lock"]):
        project.git("-C", str(tmp_path / "tree"), *command)
    (tmp_path / "tree/dvc.lock").unlink()
    delete(plan)
    assert left(plan, wanted, other) == [True, False]


def test_a_merge_that_names_what_no_side_names_survives(plan: Plan, project: Project, tmp_path: Path) -> None:
    ours, theirs, merged = (made(plan, tmp_path, name) for name in ("ours", "theirs", "merged"))
    project.git("branch", "side")
    for name, branch in ((ours, ""), (theirs, "side")):
        if branch:
            project.git("checkout", "-q", branch)
        (project.folder / "dvc.lock").write_text(lock_file(name))
        project.git("add", "-f", "dvc.lock")
        project.git("commit", "-q", "-m", name)
    project.git("merge", "-q", "-s", "ours", "--no-commit", "-")
    (project.folder / "dvc.lock").write_text(lock_file(merged))
    project.git("add", "-f", "dvc.lock")
    project.git("commit", "-q", "-m", "both")
    project.git("rm", "-q", "dvc.lock")
    project.git("commit", "-q", "-m", "gone")
    delete(plan)
    assert left(plan, ours, theirs, merged) == [True, True, True]


def test_files_in_folders_of_another_branch_name_results(plan: Plan, project: Project, tmp_path: Path) -> None:
    paths = ("params/profiles/real.yaml", "tables/raw/some.csv.dvc", "sub/dvc.lock")
    other, wanted = made(plan, tmp_path, "other"), {path: made(plan, tmp_path, path) for path in paths}
    project.git("checkout", "-q", "-b", "real")
    for path in paths:
        (project.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (project.folder / path).write_text(lock_file(wanted[path]))
    project.git("add", "-f", *paths)
    project.git("commit", "-q", "-m", "real")
    project.git("checkout", "-q", "-")
    delete(plan)
    assert left(plan, other, *wanted.values()) == [False, True, True, True]


def test_without_git_what_lies_here_survives(plan: Plan, project: Project, tmp_path: Path) -> None:
    wanted, other = made(plan, tmp_path, "wanted"), made(plan, tmp_path, "other")
    shutil.rmtree(project.folder / ".git")
    (project.folder / "dvc.lock").write_text(lock_file(wanted))
    delete(plan)
    assert left(plan, wanted, other) == [True, False]


def test_a_history_that_cannot_be_read_deletes_nothing(
    plan: Plan, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = made(plan, tmp_path, "other")
    (project.folder / "dvc.lock").write_text(lock_file("0" * 32))
    project.git("add", "-f", "dvc.lock")
    project.git("commit", "-q", "-m", "with it")
    blob, part = (
        project.git("rev-parse", "HEAD:dvc.lock").stdout.strip(),
        "What git's history names cannot be known, so nothing is deleted",
    )

    def refused(part: str) -> None:
        with pytest.raises((StageFailed, BadInput), match=part):
            delete(plan)

    with monkeypatch.context() as patch:
        patch.setenv("GIT_DIR", str(tmp_path))
        refused("GIT_DIR is set")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        refused(f"{part}; install git")
    (project.folder / ".git/shallow").write_text(project.git("rev-parse", "HEAD").stdout)
    refused("is a shallow clone.*git fetch --unshallow")
    (project.folder / ".git/shallow").unlink()
    (project.folder / ".git/objects" / blob[:2] / blob[2:]).unlink()
    refused(f"{blob} missing. {part}")
    (project.folder / ".git/HEAD").write_text("rubbish")
    refused(part)
    assert left(plan, other) == [True]


def test_a_lock_file_that_is_none_deletes_nothing(plan: Plan, project: Project, tmp_path: Path) -> None:
    other = made(plan, tmp_path, "other")
    for text in ("<<<<<<< HEAD\nstages: {}\n", "stages: {s: {outs: [{path: 3}]}}", "stages: ["):
        (project.folder / "dvc.lock").write_text(text)
        with pytest.raises(BadInput, match=r"dvc\.lock"):
            delete(plan)
    assert left(plan, other) == [True]


def test_a_folder_that_cannot_be_read_deletes_nothing(
    plan: Plan, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = made(plan, tmp_path, "other")
    (project.folder / "tables").mkdir()
    real = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "tables":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(history.os, "scandir", refuse)
    with pytest.raises(BadInput, match="tables: Permission denied: what is named there cannot be known"):
        delete(plan)
    assert left(plan, other) == [True]


def test_params_and_the_ledger_name_results(plan: Plan, project: Project, tmp_path: Path) -> None:
    names = ("base", "champion", "decision", "begun", "moved", "other")
    base, champion, decision, begun, moved, other = (made(plan, tmp_path, name) for name in names)
    (project.folder / "params/profiles/mine.yaml").write_text(f"base: {{checkpoint: {{source: 'artifact:{base}/model'}}}}\n")
    promoted = {"event": "promote", "model": "agent", "version": "1", "identity": moved}
    Ledger.of(plan).append(signed(promoted))
    (plan.store.state / "promotions.db").rename(plan.store.state / "promotions.db.moved")
    Ledger.of(plan).append(signed({**promoted, "identity": champion, "decision": decision}))
    (plan.store.state / "promotion.json").write_text(json.dumps({**promoted, "identity": begun}))
    delete(plan)
    assert left(plan, base, champion, decision, begun, moved, other) == [*[True] * 5, False]


def test_a_ledger_that_is_damaged_or_locked_deletes_nothing(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = made(plan, tmp_path, "other")
    monkeypatch.setattr("flows.ledger_database.PATIENCE", 0.1)
    Ledger.of(plan).append(signed({"event": "promote", "model": "agent", "version": "1", "identity": "x"}))
    file = plan.store.state / "promotions.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BadInput, match="locked by another process"):
            delete(plan)
    file.write_bytes(b"rubbish" * 1000)
    with pytest.raises(StageFailed, match="ledger of promotions"):
        delete(plan)
    assert left(plan, other) == [True]


def test_another_registry_than_the_ledgers_deletes_nothing(plan: Plan, tmp_path: Path) -> None:
    """An empty registry, such as that of a mistyped address, must not pass for one without versions."""
    other, model = made(plan, tmp_path, "other"), plan.settings.shared.promote.model
    Ledger.of(plan).append(signed({"event": "promote", "model": model, "version": "7", "identity": "x"}))
    with pytest.raises(StageFailed, match=r"There is no version 7 in it.*nothing is deleted"):
        delete(plan)
    assert left(plan, other) == [True]


def test_what_a_version_was_made_of_survives_with_its_base(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """decision -> evaluation -> adapter -> rows -> worlds, of which the rows' stage reads a part; and the adapter's base, by its file
    and by what was read."""
    frozen = folder(tmp_path / "frozen", **{"shop/policy.md": "be kind", f"{UNSEEN}/test.json": "later"})
    worlds = plan.store.put(frozen)
    plan.store.record(Key({"stage": "worlds", "inputs": {}}), worlds, {"read": []})
    seen = plan.store.without(worlds, UNSEEN)
    rows, base, read = made(plan, tmp_path, "rows", inputs={"worlds": seen}), made(plan, tmp_path, "base"), made(plan, tmp_path, "read")
    adapter = plan.store.put(folder(tmp_path / "adapter", **{"model/base.json": json.dumps({"artifact": base})}))
    plan.store.record(Key({"stage": "sft", "inputs": {"filter": rows}}), adapter, {"read": [read]})
    evaluation = made(plan, tmp_path, "evaluation", stage="evaluate", inputs={"sft": adapter})
    met = {name: made(plan, tmp_path, name) for name in ("opponent", "anchor")}
    decision = made(plan, tmp_path, "decision", stage="decide", inputs={"evaluate": evaluation}, **met)
    other = made(plan, tmp_path, "other")
    monkeypatch.setattr(references, "of_mlflow", lambda state, days: iter([(decision, references.VERSIONS)]))
    found = delete(plan)
    assert seen != worlds and left(plan, worlds, seen) == [True, True]
    assert left(plan, rows, base, read, adapter, evaluation, decision, *met.values(), other) == [*[True] * 8, False]
    assert {*who(found).values()} == {references.VERSIONS} and len(found.kept) == 9


# --- MLflow ---


def registered(file: Path, model: str, artifacts: dict[int, str], runs: dict[str, tuple[str, str, int]]) -> None:
    """versions: number -> result. runs: id -> (result, lifecycle, end in milliseconds)."""
    with closing(sqlite3.connect(file)) as database:
        database.execute("INSERT INTO registered_models (name, creation_time, last_updated_time) VALUES (?, 1, 1)", (model,))
        columns = "(name, version, creation_time, last_updated_time, current_stage, status)"
        for number, identity in artifacts.items():
            database.execute(f"INSERT INTO model_versions {columns} VALUES (?, ?, 1, 1, 'None', 'READY')", (model, number))
            tag = (model, number, "cairn.artifact", identity)
            database.execute("INSERT INTO model_version_tags (name, version, key, value) VALUES (?, ?, ?, ?)", tag)
        database.execute("INSERT OR IGNORE INTO experiments (experiment_id, name, lifecycle_stage) VALUES (9, 'other', 'active')")
        for run, (identity, stage, end) in runs.items():
            columns = "(run_uuid, name, status, lifecycle_stage, start_time, end_time, experiment_id, source_type, user_id)"
            database.execute(f"INSERT INTO runs {columns} VALUES (?, ?, 'KILLED', ?, 1, ?, 9, 'LOCAL', 'me')", (run, run, stage, end))
            database.execute("INSERT INTO tags (key, value, run_uuid) VALUES ('cairn.artifact.sft', ?, ?)", (identity, run))
        database.commit()


def test_versions_and_runs_of_every_database_name_results(
    plan: Plan, project: Project, tmp_path: Path, migrated: Callable[[Project], Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the project's own database too, where the settings name another one; a registry apart from where runs are recorded."""
    names = ("first", "second", "apart", "run", "old run", "deleted run")
    first, second, apart, run, old, deleted = (made(plan, tmp_path, name) for name in names)
    own, now = migrated(project).folder / ".cairn/mlflow.db", 4_000_000_000_000
    other = Path(shutil.copy2(own, tmp_path / "other.db"))
    runs = {"r" * 32: (run, "active", now), "o" * 32: (old, "active", 1000), "d" * 32: (deleted, "deleted", now)}
    registered(own, "agent", {1: first, 2: second}, runs)
    registered(other, "agent", {1: apart}, {})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/nothing.db")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", f"sqlite:///{other}")
    found = look(plan)
    assert [one.identity for one in found.results] == [deleted] and not (tmp_path / "nothing.db").exists()
    kept = {first: references.VERSIONS, second: references.VERSIONS, apart: references.VERSIONS, run: references.RUNS}
    assert who(found) == {**kept, old: references.RUNS}
    assert {one.identity for one in look(plan, Wish(runs=30)).results} == {old, deleted}
    with closing(sqlite3.connect(own)) as database:
        database.execute("DROP TABLE model_version_tags")
        database.commit()
    with pytest.raises(NoRegistry, match="MLflow's registry failed"):
        delete(plan)
    assert all(left(plan, first, second, apart, run, old, deleted))


def test_a_registry_that_does_not_answer_deletes_nothing(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = made(plan, tmp_path, "other")
    address = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    monkeypatch.setenv(*next(iter(address.items())))
    monkeypatch.setattr("tasks.engine.start.users_variables", lambda: address)
    with pytest.raises(BadInput, match="nobody answers there"):
        delete(plan)
    assert left(plan, other) == [True]


def test_kept_answers_reports_and_what_mlflow_is_still_to_be_told_name_results(plan: Plan, project: Project, tmp_path: Path) -> None:
    state = plan.store.state
    files = (state / "served/2026-01-01.jsonl", project.folder / "reports/runs/0123456789/summary.json", state / "filled/real.yaml")
    other, told, *wanted = (made(plan, tmp_path, name) for name in ("other", "told", *(file.name for file in files)))
    for file, identity in zip(files, wanted, strict=True):
        folder(file.parent, **{file.name: json.dumps({"checkpoint": identity})})
    journal = Journal(state, "k" * 64, {"run": "k" * 64})
    journal.add("sft", "done", {"identity": told})
    journal.close(delivered=False)
    delete(plan)
    assert left(plan, other, told, *wanted) == [False, True, True, True, True]


# --- what interrupted runs go on from, what is young, what nobody recorded ---


def test_parts_of_what_the_params_compute_survive(plan: Plan, tmp_path: Path) -> None:
    """A world's specialist of a killed step is gone on with; that of other params is not."""
    worlds = plan.store.put(folder(tmp_path / "worlds", **{"shop/policy.md": "be kind"}))
    plan.store.record(job_of(plan, "worlds", {}).key, worlds, {"read": []})
    parts = {**job_of(plan, "base", {"worlds": worlds}).key.parts, "unit": "shop", "threads": 1}
    mine = plan.store.put(folder(tmp_path / "mine", a="mine"))
    plan.store.record(Key(parts), mine, {"read": []})
    other = plan.store.put(folder(tmp_path / "other", a="other"))
    plan.store.record(Key({**parts, "params": {"steps": 9}}), other, {"read": []})
    delete(plan, Wish(unfinished=True))
    assert left(plan, mine, other) == [True, False]


def test_what_an_interrupted_run_goes_on_from_survives_with_what_it_reads(plan: Plan, tmp_path: Path) -> None:
    """Of an experiment, whose params are not the present ones: a step's work, and a finished specialist of an unfinished step."""
    rows, start, other = (made(plan, tmp_path, name) for name in ("rows", "start", "other"))
    begun, done = Key({"stage": "sft", "inputs": {"filter": rows}}), Key({"stage": "sft", "inputs": {}, "name": "other"})
    parts = {"stage": "rl", "params": {"x": 1}}
    unit = plan.store.put(folder(tmp_path / "unit", a="unit"))
    plan.store.record(Key({**parts, "inputs": {"worlds": "a" * 32, "sft": start}, "unit": "shop", "threads": 1}), unit, {})
    for key in (begun, done):
        out, scratch = plan.store.workbench(key.digest)
        (out.parent / WHOSE).write_text(json.dumps(key.parts))
        (scratch / "step.bin").write_bytes(b"x" * 1000)
    found = delete(plan)
    assert left(plan, rows, start, unit, other) == [True, True, True, False]
    assert found.work == [done.digest[:32]] and found.freed >= 1000, "its result is recorded"
    whole = plan.store.put(folder(tmp_path / "whole", a="whole"))
    plan.store.record(Key({**parts, "inputs": {"worlds": "b" * 32, "sft": start}}), whole, {})
    (tmp_path / "project/dvc.lock").write_text(lock_file(whole))
    delete(plan)
    assert left(plan, unit, whole) == [False, True], "the whole has it"
    assert delete(plan, Wish(unfinished=True)).work == [begun.digest[:32]] and left(plan, rows, start) == [False, True]


def test_what_was_just_made_survives_with_what_it_was_made_of(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever made it, on another machine or under DVC, may be about to name it."""
    rows = made(plan, tmp_path, "rows")
    monkeypatch.setattr(references, "is_young", lambda path: "young" in path.read_text() if path.suffix == ".json" else False)
    young = made(plan, tmp_path, "young", inputs={"filter": rows})
    found = delete(plan)
    assert left(plan, rows, young) == [True, True] and who(found)[young] == references.YOUNG
    monkeypatch.undo()
    assert references.is_young(tmp_path), "an hour is not over"


def test_stored_files_that_no_result_here_has_stay(plan: Plan, tmp_path: Path) -> None:
    """`dvc pull` fetched them, or another project has DVC's cache here too."""
    other, fetched = (
        made(plan, tmp_path, "other"),
        plan.store.put(folder(tmp_path / "fetched", theirs="theirs", shared="the same in all")),
    )
    found = delete(plan)
    assert left(plan, other) == [False] and found.unrecorded[0] == 2
    assert [plan.store.path(name).exists() for name in (fetched, *sorted((plan.store.files(fetched) or {}).values()))].count(True) == 2
    delete(plan, Wish(unrecorded=True))
    assert not plan.store.objects()


def test_answers_of_model_servers_are_not_touched(plan: Plan, tmp_path: Path) -> None:
    made(plan, tmp_path, "other")
    cache = Cache(plan.store.state)
    cache.put(b"1" * 32, {"text": "hello"}, Paid("run", "judge", "small", 1, 1, 0.1))
    delete(plan, Wish(unfinished=True, unrecorded=True, runs=1))
    assert cache.get(b"1" * 32) == {"text": "hello"}


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_named_survives(plan: Plan, project: Project, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A random store: results made of each other, some named by commits, the workspace, params, the ledger, the registry."""
    rng, store = Random(seed), plan.store
    results: list[str] = []
    origins: dict[str, set[str]] = {}
    for number in range(25):
        inputs = set(rng.sample(results, min(len(results), rng.randrange(3))))
        texts = {f"f{n}": f"text {rng.randrange(12)}" for n in range(rng.randrange(1, 4))}
        made_now = folder(tmp_path / f"o{number}", **texts, **({"own": str(number)} if rng.random() < 0.7 else {}))
        identity = store.put(made_now)
        store.record(Key({"stage": "sft", "n": number, "inputs": dict(zip("abc", sorted(inputs), strict=False))}), identity, {})
        results.append(identity)
        origins.setdefault(identity, set()).update(inputs)
        if rng.random() < 0.3:
            store.view(identity)
    named = {place: rng.sample(results, rng.randrange(3)) for place in ("commit", "ref", "workspace", "params", "ledger", "registry")}
    for place, ref in (("commit", ""), ("ref", f"refs/exps/aa/{seed}")):
        (project.folder / "dvc.lock").write_text(lock_file(*named[place]))
        project.git("add", "-f", "dvc.lock")
        project.git("commit", "-q", "--allow-empty", "-m", place)
        if ref:
            project.git("update-ref", ref, "HEAD")
            project.git("reset", "-q", "--hard", "HEAD~1")
    (project.folder / "dvc.lock").write_text(lock_file(*named["workspace"]))
    (project.folder / "params/profiles/mine.yaml").write_text(yaml.safe_dump({"name": named["params"]}))
    for one in named["ledger"]:
        Ledger.of(plan).append(signed({"event": "promote", "model": "agent", "version": "1", "identity": one}))
    monkeypatch.setattr(references, "of_mlflow", lambda state, days: iter([(one, "registry") for one in named["registry"]]))
    wanted, todo = set(), [one for some in named.values() for one in some]
    while todo:
        one = todo.pop()
        if one not in wanted:
            wanted.add(one)
            todo += origins[one]
    found = delete(plan)
    assert {one.identity for one in found.results} == set(results) - wanted
    for one in results:
        assert store.has(one, verify=True) == (one in wanted)
    assert {entry["identity"] for entry in store.entries()} == wanted
    assert delete(plan).empty, "the second time there is nothing to delete"


# --- who uses the store ---


def _use(state: str, taken: Any, end: Any, go: Any = None) -> None:
    if go is not None:
        go.wait(30)
    with using(Path(state)):
        taken.set()
        end.wait(30)


def test_while_a_run_goes_on_nothing_is_deleted(plan: Plan, tmp_path: Path) -> None:
    other = made(plan, tmp_path, "other")
    context = multiprocessing.get_context("fork")
    taken, end = context.Event(), context.Event()
    process = context.Process(target=_use, args=(str(plan.store.state), taken, end))
    process.start()
    assert taken.wait(30)
    with pytest.raises(BadInput, match=rf"the store, for a run or another command: process {process.pid}"):
        delete(plan)
    assert left(plan, other) == [True] and not look(plan).empty, "looking is allowed"
    end.set()
    process.join(30)
    assert delete(plan).results and left(plan, other) == [False]


def test_a_run_that_was_killed_is_in_nobodys_way(plan: Plan, tmp_path: Path) -> None:
    made(plan, tmp_path, "other")
    context = multiprocessing.get_context("fork")
    taken = context.Event()
    process = context.Process(target=_use, args=(str(plan.store.state), taken, context.Event()))
    process.start()
    assert taken.wait(30)
    process.kill()
    process.join(30)
    assert list((plan.store.state / FOLDER).glob("use-*")), "its file is left"
    assert delete(plan).results and not list((plan.store.state / FOLDER).glob("use-*"))


def test_any_other_lock_holds_it_up_too(plan: Plan, tmp_path: Path) -> None:
    made(plan, tmp_path, "other")
    for name in ("key-0123", "promote", "workspace", "slot-cpu"):
        with lock(plan.store.state, name), pytest.raises(BadInput, match="the store is in use"):
            delete(plan)


def test_who_begins_while_it_deletes_waits_for_it(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(plan, tmp_path, "other")
    context = multiprocessing.get_context("fork")
    taken, end, go = context.Event(), context.Event(), context.Event()
    process = context.Process(target=_use, args=(str(plan.store.state), taken, end, go))
    process.start()
    seen: list[bool] = []

    def slowly(*_: Any) -> None:
        go.set()
        seen.append(taken.wait(0.5))

    monkeypatch.setattr(gc, "clear", slowly)
    delete(plan)
    assert seen == [False], "it did not begin while results were deleted"
    assert taken.wait(30)
    end.set()
    process.join(30)


def test_a_command_that_uses_the_store_leaves_no_file(plan: Plan) -> None:
    with using(plan.store.state):
        assert len(list((plan.store.state / FOLDER).glob("use-*"))) == 1
    assert not list((plan.store.state / FOLDER).glob("use-*"))


def test_a_run_of_an_earlier_version_holds_it_up_too(plan: Plan, tmp_path: Path) -> None:
    """It takes no lock for that, but it writes a journal."""
    made(plan, tmp_path, "other")
    journal = Journal(plan.store.state, "k" * 64, {"run": "k" * 64})
    with pytest.raises(BadInput, match="a run that keeps a journal"):
        delete(plan)
    journal.close(delivered=True)
    assert delete(plan).results


# --- ends half-way, links ---


def test_what_is_deleted_half_way_never_looks_whole(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails, a folder that is not ours, a kill: what is named is there, and the next one finds the rest."""
    wanted, real = made(plan, tmp_path, "wanted"), Path.unlink
    (tmp_path / "project/dvc.lock").write_text(lock_file(wanted))
    for last in range(8):
        other, another, count = made(plan, tmp_path, "other"), made(plan, tmp_path, "another"), [0]
        plan.store.view(other)

        def fails(path: Path, *args: Any, count: list[int] = count, last: int = last, **kwargs: Any) -> None:
            count[0] += 1
            if count[0] > last:
                raise PermissionError(13, "Permission denied", str(path))
            real(path, *args, **kwargs)

        with gc.to_delete(plan, Wish()) as found, monkeypatch.context() as broken:
            broken.setattr(Path, "unlink", fails)
            with pytest.raises(PermissionError):
                gc.delete(plan, found)
        assert left(plan, wanted) == [True]
        for entry in plan.store.entries():
            listing, there = plan.store.files(entry["identity"]), plan.store.has(entry["identity"], verify=True)
            assert there == (listing is not None and all(plan.store.path(md5).exists() for md5 in listing.values()))
        delete(plan)
        assert left(plan, wanted, other, another) == [True, False, False] and look(plan).empty
        assert len(plan.store.objects()) == 3 and not (plan.store.state / "views" / other).exists()


def test_links_lead_nowhere(plan: Plan, tmp_path: Path) -> None:
    mine = folder(tmp_path / "mine", **{"precious": "x", "out/precious": "y"})
    for place in ("views", "work"):
        (plan.store.state / place).mkdir(exist_ok=True)
    (plan.store.state / "views" / ("0" * 32 + ".dir")).symlink_to(mine)
    (plan.store.state / "work" / ("1" * 32)).symlink_to(mine)
    (plan.store.state / "work" / ("2" * 32)).mkdir()
    (plan.store.state / "work" / ("2" * 32) / "out").symlink_to(mine)
    os.link(mine / "precious", tmp_path / "another name")
    delete(plan, Wish(unfinished=True, unrecorded=True))
    assert (mine / "precious").read_text() == "x" and (mine / "out/precious").read_text() == "y"


# --- a state root that several share ---


def test_a_shared_state_root_needs_the_names_of_all_who_share_it(
    plan: Plan, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Plan.open(plan.settings, tmp_path / "home")
    theirs, noted, other = (made(home, tmp_path, name) for name in ("theirs", "noted", "other"))
    second = folder(tmp_path / "second", **{"dvc.yaml": "stages: {}", "dvc.lock": lock_file(theirs)})
    third = folder(tmp_path / "third", **{"dvc.yaml": "stages: {}", "dvc.lock": lock_file(noted)})
    monkeypatch.setenv("CAIRN_HOME", str(tmp_path / "home"))
    for place in (third, tmp_path / "gone"):
        note_checkout(replace(home, settings=replace(home.settings, project=place)))
    with pytest.raises(BadInput, match=r"outside of this project.*--also FOLDER"):
        look(home)
    with pytest.raises(BadInput, match="no checkout of a project"):
        look(home, Wish(also=[tmp_path]))
    delete(home, Wish(also=[second]))
    assert left(home, theirs, noted, other) == [True, True, False], "whoever ran there by CAIRN_HOME is known"
    delete(home, Wish(also=[project.folder]))
    assert left(home, theirs, noted) == [False, True]


def test_a_link_to_a_shared_place_is_one_too(plan: Plan, project: Project, tmp_path: Path) -> None:
    made(plan, tmp_path, "other")
    for linked in (".cairn/store", ".cairn"):
        shutil.move(project.folder / linked, tmp_path / "elsewhere")
        (project.folder / linked).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(BadInput, match="elsewhere, outside of this project"):
            delete(plan)
        (project.folder / linked).unlink()
        shutil.move(tmp_path / "elsewhere", project.folder / linked)


# --- the remote, words ---


def test_what_no_remote_has_is_said(plan: Plan, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(plan, tmp_path, "other")
    found = look(plan)
    lost, why = gc.on_no_remote(plan, found)
    assert lost == set(found.objects) and why == "there is no DVC remote"
    project.run("git", "config", "-f", ".dvc/config.local", "core.remote", "shelf")
    (project.folder / ".dvc/config.local").write_text("[core]\n    remote = shelf\n['remote \"shelf\"']\n    url = ../shelf\n")
    monkeypatch.setattr(remotes, "ask", lambda *_: remotes.Answer(None, "no answer within 120 s"))
    lost, why = gc.on_no_remote(plan, found)
    assert lost == set(found.objects) and "cannot be asked (no answer within 120 s)" in why
    monkeypatch.setattr(remotes, "ask", lambda *_: remotes.Answer(frozenset(found.objects[:2])))
    lost, why = gc.on_no_remote(plan, found)
    assert lost == set(found.objects[2:])
    text = "\n".join(gc.lines(plan, found, lost, why))
    assert "1 of the stored files can be made again, and not be fetched: the DVC remote shelf does not have them" in text
    assert "goes   sft (no method)" in text


def test_a_remote_says_which_files_it_has(plan: Plan, project: Project, tmp_path: Path) -> None:
    """DVC itself, on a folder."""
    identity = made(plan, tmp_path, "other")
    objects = plan.store.objects()
    shutil.copytree(plan.store.state / "store/files", tmp_path / "shelf/files")
    (project.folder / ".dvc/config.local").write_text(
        f"[core]\n    remote = shelf\n['remote \"shelf\"']\n    url = {tmp_path / 'shelf'}\n"
    )
    gone = tmp_path / "shelf/files/md5" / identity[:2] / identity[2:]
    gone.unlink()
    answer = remotes.ask(project.folder, objects, 60)
    assert answer.there == set(objects) - {identity}, answer.why
    assert remotes.ask(project.folder, (), 60).why == ""


def test_the_command(
    plan: Plan, project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import flows
    import flows.run

    for module in (flows, flows.run):
        monkeypatch.setattr(module, "PROJECT", project.folder)
        monkeypatch.setattr(module, "STATE", plan.store.state)
    monkeypatch.chdir(project.folder)
    other, kept = made(plan, tmp_path, "other"), made(plan, tmp_path, "kept")
    (project.folder / "dvc.lock").write_text(lock_file(kept))
    assert main(["gc"]) == 0
    out = capsys.readouterr().out
    assert "Nothing was deleted: with --yes it is deleted." in out and left(plan, other) == [True]
    assert f"stays  1 result for {references.LOCKS}: 0.0 MB" in out and "goes   sft (no method)" in out
    assert main(["gc", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["deleted"] is False and len(document["objects"]) == 2 and document["remote"] == "there is no DVC remote"
    assert [(one["identity"], one["why"]) for one in document["kept"]] == [(kept, references.LOCKS)]
    assert main(["gc", "--yes"]) == 0
    out = capsys.readouterr().out
    assert "2 of the stored files can be made again" in out and "came free" in out and left(plan, other, kept) == [False, True]
    assert main(["gc", "--yes"]) == 0 and "nothing to delete" in capsys.readouterr().out
    for wrong in (["gc", "--runs", "0"], ["gc", "--runs", "x"], ["gc", "--also", "/nowhere"]):
        assert main(wrong) == 2, wrong
    monkeypatch.setattr(flows.run, "check_writable", lambda _: pytest.fail("a full disk is when it is needed"))
    assert main(["gc"]) == 0
