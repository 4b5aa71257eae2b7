"""The generate stage as a Prefect task: open the inputs, run the chosen method, keep what it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.engine.cached import room_task
from tasks.engine.job import Job
from tasks.engine.running import in_process


def inputs(job: Job) -> dict[str, Any]:
    """What the room's `Inputs` get."""
    return {"worlds": job.of("worlds"), "bank": job.file("params/bank.json"), "source": job.source()}


@room_task("generate")
def run_step(job: Job, out: Path, scratch: Path) -> dict[str, Any]:
    """Make blueprints, prove them, and play them."""
    return in_process(job, out, scratch, inputs(job))
