"""The worlds stage as a Prefect task: open the inputs, run the chosen method, keep what it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.engine.cached import room_task
from tasks.engine.job import Job
from tasks.engine.running import in_process


def inputs(job: Job) -> dict[str, Any]:
    """What the room's `Inputs` get."""
    return {}


@room_task("worlds")
def run_step(job: Job, out: Path, scratch: Path) -> dict[str, Any]:
    """Freeze every world of the params into one artifact."""
    return in_process(job, out, scratch, inputs(job))
