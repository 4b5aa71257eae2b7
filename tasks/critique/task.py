"""The critique stage as a Prefect task: open the inputs, run the chosen method, keep what it leaves."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import task

from tasks.engine.cached import STAGE, key, submit
from tasks.engine.job import Job
from tasks.engine.produce import produce
from tasks.engine.running import in_process


def inputs(job: Job) -> dict[str, Any]:
    """What the room's `Inputs` get."""
    return {name: job.of(name) for name in ("worlds", "generate")}


@task(name="critique", task_run_name="{job.stage}: {job.method}", cache_key_fn=key, **STAGE)
def run_step(job: Job) -> dict[str, str]:
    """Judge every trajectory."""

    def work(out: Path, scratch: Path) -> dict[str, Any]:
        return in_process(job, out, scratch, inputs(job), submit)

    return asdict(produce(job, work))
