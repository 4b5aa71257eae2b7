"""`cairn doctor`: each kind of damage is found, named and counted; what never ran, or is merely late, is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from flows.doctor import kept, runs
from flows.doctor.finding import Place, Severity
from flows.doctor.installed import numeric
from flows.doctor.time_box import in_words
from flows.road import workspace_inputs
from tasks.contract.params import StageFailed
from tasks.engine.explain import remember
from tasks.engine.job import job_of
from tasks.engine.locks import lock
from tasks.engine.plan import Plan
from tasks.engine.settings import load
from tests.conftest import Project, make_project
from tests.engine.test_artifact import flip, folder, the_object


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path / "project")


@pytest.fixture
def plan(project: Project, tmp_path: Path) -> Plan:
    """A workspace whose first stage was done, laid out, and noted by DVC."""
    plan = Plan.open(load(project.folder), project.folder / ".cairn")
    job = job_of(plan, "worlds", {})
    identity = plan.store.put(folder(tmp_path / "made", **{"shop/policy.md": "be kind", "shop/tables.json": "{}"}))
    plan.store.record(job.key, identity, {"read": [], "figures": {}})
    remember(plan, job)
    plan.store.view(identity)
    plan.store.lay_out(identity, project.folder / "data/worlds")
    lines = {"schema": "2.0", "stages": {"worlds": {"cmd": "x", "outs": [{"path": "data/worlds", "md5": identity}]}}}
    (project.folder / "dvc.lock").write_text(yaml.safe_dump(lines))
    return plan


def look(plan: Plan) -> tuple[int, str]:
    """(errors, what was found) of the checks of what is kept."""
    place = Place(plan.settings.project, plan.store, plan)
    finds = (numeric, runs.locks, runs.work, kept.leftovers, kept.hashes, kept.records, kept.stored, kept.views, kept.stages)
    found = [one for find in (*finds, kept.workspace) for one in in_words(find.__name__, find, place)]
    return sum(one.severity is Severity.ERROR for one in found), "\n".join(map(str, found))


def identity(plan: Plan) -> str:
    return next(path.name for path in (plan.store.state / "views").iterdir())


def test_a_sound_workspace(plan: Plan) -> None:
    count, text = look(plan)
    assert count == 0, text
    for part in ("versions", "locks", "leftovers", "hashes", "records", "store", "views", "stages", "dvc.lock", "workspace"):
        assert f"\n{part}" in f"\n{text}", part
    assert "worlds: cached" in text and "base: never ran here" in text


def test_nothing_yet_is_no_damage(project: Project) -> None:
    count, text = look(Plan.open(load(project.folder), project.folder / ".cairn"))
    assert count == 0 and "worlds: never ran here" in text and "nothing is cached yet" in text


def test_a_flipped_byte_of_the_store(plan: Plan) -> None:
    shutil.rmtree(plan.settings.project / "data")
    flip(the_object(plan.store, identity(plan), "shop/policy.md"))
    count, text = look(plan)
    assert count == 2, text
    assert "ERROR: worlds: shop/policy.md (" in text and "damaged, removed" in text
    assert "ERROR: worlds: its artifact is missing or damaged" in text
    assert "-> dvc pull; cairn run" in text


def test_a_listing(plan: Plan) -> None:
    flip(plan.store._object(identity(plan)))
    count, text = look(plan)
    assert count == 2 and "ERROR: worlds: its listing (" in text and "its artifact is missing or damaged" in text, text


def test_a_missing_object(plan: Plan) -> None:
    the_object(plan.store, identity(plan), "shop/policy.md").unlink()
    (plan.settings.project / "data/worlds/shop/policy.md").unlink()
    count, text = look(plan)
    assert count == 2 and "its artifact is missing or damaged" in text and "data/worlds is not what dvc.lock says" in text, text


def test_a_record(plan: Plan) -> None:
    (path,) = (plan.store.state / "keys").iterdir()
    for text in ("{", json.dumps({**json.loads(path.read_text()), "parts": {"stage": "worlds"}})):
        path.write_text(text)
        count, said = look(plan)
        assert count == 2 and "is not what was written" in said and "worlds: the record of its result is missing or damaged" in said, (
            said
        )


def test_a_view_that_is_a_copy(plan: Plan) -> None:
    path = plan.store.state / "views" / identity(plan) / "shop/policy.md"
    path.unlink()
    path.write_text("be mean")
    count, text = look(plan)
    assert count == 1 and "views      ERROR" in text
    assert look(plan)[0] == 0 and plan.store.view(identity(plan)).joinpath("shop/policy.md").read_text() == "be kind"


def test_a_file_of_the_workspace(plan: Plan) -> None:
    path = plan.settings.project / "data/worlds/shop/policy.md"
    path.unlink()
    path.write_text("be mean")
    count, text = look(plan)
    assert count == 1 and "data/worlds is not what dvc.lock says (shop/policy.md)\n           -> cairn run" in text, text


def test_the_database_of_hashes(plan: Plan) -> None:
    plan.store.hashes._db.execute("DROP TABLE files")
    (plan.store.state / "hashes.db").write_bytes(b"rubbish" * 1000)
    count, text = look(Plan.open(plan.settings, plan.store.state))
    assert count == 0 and "hashes     what is known" in text, "it was made anew when it was opened"
    plan = Plan.open(plan.settings, plan.store.state)
    plan.store.hashes._db.execute("PRAGMA writable_schema=ON")
    plan.store.hashes._db.execute("UPDATE sqlite_schema SET rootpage=999 WHERE name='files'")
    plan.store.hashes._db.execute("PRAGMA writable_schema=RESET")
    count, text = look(plan)
    assert count == 1 and "hashes     ERROR" in text, text


def test_what_cannot_be_read_now_is_told_and_left(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = the_object(plan.store, identity(plan), "shop/policy.md"), plan.store.hashes.file

    def refuse(asked: Path, trust: bool = True) -> str:
        if asked == path and not trust:
            raise OSError(5, "Input/output error", str(asked))
        return real(asked, trust)

    monkeypatch.setattr(plan.store.hashes, "file", refuse)
    count, text = look(plan)
    assert count >= 1 and "cannot be read now, left alone: Input/output error" in text and path.exists(), text


def test_dvc_is_not_left_to_bind_what_is_made_of_altered_bytes(plan: Plan) -> None:
    """DVC goes by size and time: under `dvc repro` a flipped input would stand in dvc.lock under its old name."""
    path = plan.settings.project / "data/worlds/shop/policy.md"
    good = workspace_inputs(plan, "base")
    assert good == {"worlds": identity(plan)}
    flip(path)
    with pytest.raises(StageFailed, match=r"data/worlds was altered on the disk.*`cairn run`"):
        workspace_inputs(plan, "base")


def test_a_copy_that_was_altered_is_shown_to_dvc(plan: Plan) -> None:
    path = plan.settings.project / "data/worlds/shop/policy.md"
    text = path.read_text()
    path.unlink()
    path.write_text(text)
    workspace_inputs(plan, "base")
    flip(path)
    before = path.stat().st_mtime_ns
    assert workspace_inputs(plan, "base") != {"worlds": identity(plan)}
    assert path.stat().st_mtime_ns != before and plan.store.has(identity(plan))


def test_other_versions(plan: Plan) -> None:
    path = plan.settings.project / "params/versions.yaml"
    path.write_text(path.read_text().replace("torch: '", "torch: '9"))
    count, text = look(plan)
    assert "versions   ERROR: torch is" in text and "pip install --requirement requirements.lock" in text and count >= 1


def test_half_written_files_and_locks_are_told_and_no_damage(plan: Plan) -> None:
    for folder_ in (plan.store.state / "keys", plan.settings.project / "data/worlds/shop"):
        (folder_ / ".new-123").write_text("half")
    with lock(plan.store.state, "slot-cpu"):
        count, text = look(plan)
    assert count == 0 and "2 half-written files of killed processes were deleted" in text, text
    assert "a place for trainings on cpu: process" in text
