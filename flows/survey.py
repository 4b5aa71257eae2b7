"""What a run would do at each stage, found out without running anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.engine.artifact import Artifact
from tasks.engine.explain import why
from tasks.engine.job import Job, job_of
from tasks.engine.plan import Plan

if TYPE_CHECKING:
    from flows.differences import Difference


@dataclass(frozen=True)
class Outlook:
    """What a run would do at one stage. `job` is None while an input is still to be made; `artifact` None when it would run."""

    stage: str
    job: Job | None
    artifact: Artifact | None
    reasons: Sequence[str] = ()
    differs: Sequence[Difference] = ()
    """params in which it differs from its last result, where somebody wants to know"""


def survey(plan: Plan, verify: bool = False) -> list[Outlook]:
    """Walk the road without running anything: what is cached, what would run, and why."""
    there: dict[str, Artifact] = {}
    steps = []
    for stage, about in plan.stages.items():
        lacking = [name for name in about.inputs if name not in there]
        if lacking:
            steps.append(Outlook(stage, None, None, [f"its input {name} would run" for name in lacking]))
            continue
        job = job_of(plan, stage, {name: there[name].identity for name in about.inputs})
        found = job.find()
        if found and verify and not plan.store.has(found.identity, verify=True):
            found = None
        steps.append(Outlook(stage, job, found, () if found else why(plan, job)))
        if found:
            there[stage] = found
    return steps
