"""The filter stage as a Prefect task: open the inputs, run the chosen method, keep what it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.engine.cached import room_task
from tasks.engine.job import Job
from tasks.engine.running import in_process


def inputs(job: Job) -> dict[str, Any]:
    """What the room's `Inputs` get."""
    return {name: job.of(name) for name in ("worlds", "generate", "critique")}


@room_task("filter")
def run_step(job: Job, out: Path, scratch: Path) -> dict[str, Any]:
    """Mark every trajectory: keep, score, reason."""
    return in_process(job, out, scratch, inputs(job))
