"""The base stage as a Prefect task: open the inputs, run the chosen method, keep what it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.engine.cached import room_task
from tasks.engine.job import Job
from tasks.engine.running import own_process


def inputs(job: Job) -> dict[str, Any]:
    """What the room's `Inputs` get."""
    return {"worlds": job.of("worlds"), "source": job.source()}


@room_task("base")
def run_step(job: Job, out: Path, scratch: Path) -> dict[str, Any]:
    """Build or fetch the checkpoint to start from."""
    return own_process(job, out, scratch, inputs(job))
