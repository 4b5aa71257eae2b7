"""The evaluate stage as a Prefect task: every model that its inputs name, the contender and the champion, on the same problems."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.contract.params import StageFailed
from tasks.engine.cached import room_task
from tasks.engine.champion import CHAMPION
from tasks.engine.job import Job
from tasks.engine.reserve import USED, gone, read
from tasks.engine.running import own_process


def champion(job: Job) -> Path | None:
    """The checkpoint of the champion that the candidate has to meet; None when there is none."""
    identity = job.key.parts.get("opponent")  # of the road's candidate alone
    if identity is None:
        return None
    try:
        return job.read(identity) / "model"
    except LookupError:
        raise StageFailed(
            f"{CHAMPION} names the champion {identity}, whose bytes are not in the store, or were damaged. "
            "`dvc pull` may bring them; `cairn champion --none` starts without a champion."
        ) from None


def anchor(job: Job) -> Path | None:
    """The checkpoint of the best champion so far, where the candidate has to meet that too; None when it has not."""
    identity = job.key.parts.get("anchor")
    if identity is None or getattr(job.params, "anchor", "none") == "none":
        return None
    try:
        return job.read(identity) / "model"
    except LookupError:
        raise StageFailed(
            f"{CHAMPION} names the anchor {identity}, the best champion so far, whose bytes are not in the store, or were damaged. "
            f"`dvc pull` may bring them; {job.stage}.{job.method}.anchor: none compares with the champion alone."
        ) from None


def _reserve(job: Job, candidate: str) -> Path:
    """The proven problems: those that the candidate was evaluated with first, or the present ones."""
    name = job.plan.settings.road.input(job.stage, "generate")
    if (met := job.read_inputs[name]) == job.inputs[name]:
        return job.open(name)
    try:
        return job.read(met)
    except LookupError:
        raise StageFailed(gone(candidate, met)) from None


def _used(job: Job, candidate: str) -> list[str]:
    """Ids of the problems of the reserve that other candidates used before this one, as the key has them."""
    before = read(job.plan.settings.project / USED).before(candidate)
    return [one for ids in before.values() for one in ids]


def inputs(job: Job) -> dict[str, Any]:
    """What the room's `Inputs` get."""
    left, settings = job.checkpoints(), job.plan.settings
    road = settings.road
    candidate = road.candidate if road.candidate in left else list(left)[-1]
    identity = job.inputs[candidate]
    return {
        "worlds": job.of("worlds"),
        "models": {name: path for models in left.values() for name, path in models.items()},
        "candidate": list(left[candidate])[-1],
        "candidate_id": identity,
        "champion": champion(job),
        "anchor": anchor(job),
        "contender": settings.shared.contender,
        "reserve": _reserve(job, identity),
        "used": _used(job, identity) if "used" in job.key.parts else [],
    }


@room_task("evaluate")
def run_step(job: Job, out: Path, scratch: Path) -> dict[str, Any]:
    """Play the test problems with every checkpoint that its inputs left and the contender, if there is one; and fresh gate problems
    with the candidate (the road's, if that is among the inputs, else the last one) and the champion."""
    return own_process(job, out, scratch, inputs(job))
