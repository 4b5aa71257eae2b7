"""The base stage as a Prefect task: open the inputs, run the chosen method, keep what it leaves."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import task

from tasks.engine.cached import STAGE, key
from tasks.engine.job import Job
from tasks.engine.produce import produce
from tasks.engine.running import own_process


def inputs(job: Job) -> dict[str, Any]:
    """What the room's `Inputs` get."""
    return {"worlds": job.of("worlds")}


@task(name="base", task_run_name="{job.stage}: {job.method}", cache_key_fn=key, **STAGE)
def run_step(job: Job) -> dict[str, str]:
    """Build or fetch the checkpoint to start from."""

    def work(out: Path, scratch: Path) -> dict[str, Any]:
        return own_process(job, out, scratch, inputs(job))

    return asdict(produce(job, work))
