"""The generate stage as a Prefect task: open the inputs, run the chosen method, keep what it leaves."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import task

from tasks.engine.cached import STAGE, key, submit
from tasks.engine.execute import Job, in_process, produce


@task(name="generate", task_run_name="generate: {job.method}", cache_key_fn=key, **STAGE)
def generate_rows(job: Job) -> dict[str, str]:
    """Make blueprints, prove them, and play them."""

    def work(out: Path, scratch: Path) -> dict[str, Any]:
        return in_process(job, out, scratch, {"worlds": job.open("worlds"), "bank": job.file("params/bank.json")}, submit)

    return asdict(produce(job, work))
