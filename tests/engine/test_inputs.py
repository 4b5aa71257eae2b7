"""What a stage really reads is what its key says: hashed before the work, compared after it, and noted with the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.contract.params import StageFailed
from tasks.engine.explain import DAMAGED, LOST, last, remember, why
from tasks.engine.job import Changed, Job, job_of
from tasks.engine.plan import Plan
from tasks.engine.produce import produce
from tasks.engine.settings import load
from tasks.engine.shards import sharded
from tests.conftest import ROOT
from tests.engine.test_artifact import flip, folder, the_object


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan.open(load(ROOT, "smoke"), tmp_path / "state")


@pytest.fixture
def job(plan: Plan, tmp_path: Path) -> Job:
    """A job of stage `base`, which reads `worlds`."""
    return job_of(plan, "base", {"worlds": plan.store.put(folder(tmp_path / "worlds", a="some bytes"))})


def again(job: Job) -> Job:
    return job_of(job.plan, job.stage, job.inputs)


def copied(job: Job) -> Any:
    def work(out: Path, scratch: Path) -> dict[str, Any]:
        (scratch / "state").write_text("half")
        (out / "made").write_bytes((job.open("worlds") / "a").read_bytes())
        return {}

    return work


def test_what_was_read_is_noted_with_the_result(job: Job) -> None:
    done = produce(job, copied(job))
    assert (job.plan.store.entry(done.key) or {})["read"] == [job.inputs["worlds"]]


@pytest.mark.parametrize("seen", [True, False])
def test_a_byte_flipped_before_the_work_is_never_read(job: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seen: bool) -> None:
    """Whether or not a stamp shows it (a disk that rots moves none)."""
    if not seen:
        monkeypatch.setattr("tasks.engine.hashes._looks", lambda seen: str(seen.st_size))
    store = job.plan.store
    assert store.has(job.inputs["worlds"])
    store.view(job.inputs["worlds"])
    flip(the_object(store, job.inputs["worlds"]))
    with pytest.raises(StageFailed, match=r"the input 'worlds' .* run again to make it"):
        produce(job, copied(job))
    assert store.entry(job.key.digest) is None
    assert store.put(folder(tmp_path / "worlds again", a="some bytes")) == job.inputs["worlds"]
    job = again(job)
    assert (store.view(produce(job, copied(job)).identity) / "made").read_text() == "some bytes"


def test_a_byte_flipped_during_the_work_makes_no_result(job: Job) -> None:
    store = job.plan.store

    def work(out: Path, scratch: Path) -> dict[str, Any]:
        figures: dict[str, Any] = copied(job)(out, scratch)
        flip(the_object(store, job.inputs["worlds"]))
        return figures

    with pytest.raises(Changed, match="bytes of worlds were altered on the disk while it read them"):
        produce(job, work)
    assert store.entry(job.key.digest) is None
    assert not (store.state / "work" / job.key.digest[:32]).exists(), "what was made of them goes too"
    assert not store.has(job.inputs["worlds"])


def test_a_failure_over_altered_bytes_is_told_as_that(job: Job) -> None:
    def work(out: Path, scratch: Path) -> dict[str, Any]:
        flip(the_object(job.plan.store, job.inputs["worlds"]), kept=False) if job.open("worlds") else None
        raise ValueError("odd header")

    with pytest.raises(Changed, match="altered on the disk"):
        produce(job, work)


def test_links_during_the_work_are_no_alteration(job: Job, tmp_path: Path) -> None:
    def work(out: Path, scratch: Path) -> dict[str, Any]:
        figures: dict[str, Any] = copied(job)(out, scratch)
        job.plan.store.lay_out(job.inputs["worlds"], tmp_path / "data")
        the_object(job.plan.store, job.inputs["worlds"]).chmod(0o400)
        return figures

    assert produce(job, work).stage == "base"


def test_an_artifact_read_beside_the_inputs_counts_too(job: Job, tmp_path: Path) -> None:
    """The champion's bytes, a specialist's: whatever a job reads by identity."""
    other = job.plan.store.put(folder(tmp_path / "champion", a="its bytes"))

    def work(out: Path, scratch: Path) -> dict[str, Any]:
        figures: dict[str, Any] = copied(job)(out, scratch)
        flip(job.read(other) / "a")
        return figures

    with pytest.raises(Changed, match=other):
        produce(job, work)


def test_damaged_lost_and_never_run_are_told_apart(job: Job) -> None:
    plan = job.plan
    assert why(plan, job) == ["never ran here"]
    done = produce(job, copied(job))
    remember(plan, job)
    the_object(plan.store, done.identity, "made").unlink()
    assert why(plan, again(job)) == [DAMAGED]
    (plan.store.state / "keys" / f"{job.key.digest}.json").write_text("{")
    assert why(plan, again(job)) == [LOST]
    last(plan, "base").write_text("{")
    assert why(plan, again(job)) == [LOST]


def test_a_shard_kept_half_is_worked_off_again(tmp_path: Path) -> None:
    def doubled(items: Any) -> list[int]:
        return [2 * item for item in items]

    list(sharded(tmp_path)("x", doubled, range(4), 2))
    (tmp_path / "shards/x/000001.json").write_text('{"res')
    assert list(sharded(tmp_path)("x", doubled, range(4), 2)) == [[0, 2], [4, 6]]
