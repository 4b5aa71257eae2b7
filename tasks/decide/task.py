"""The decide stage as a Prefect task: a pure rule, from evidence to yes or no."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.engine.cached import room_task
from tasks.engine.job import Job
from tasks.engine.running import in_process
from tasks.engine.together import planned


def inputs(job: Job) -> dict[str, Any]:
    """What the room's `Inputs` get."""
    settings = job.plan.settings
    steps = planned(settings)
    name = next(one.name for one in steps[job.stage].inputs if one.checkpoints)
    return {
        "evaluate": job.of("evaluate"),
        "champion": job.key.parts.get("opponent"),
        "anchor": job.key.parts.get("anchor"),
        "candidate": steps[name].checkpoints[-1],
        "candidate_id": job.inputs[name],
        "parent": steps[name].parent(),
    }


@room_task("decide")
def run_step(job: Job, out: Path, scratch: Path) -> dict[str, Any]:
    """Decide whether the candidate may become champion."""
    return in_process(job, out, scratch, inputs(job))
