"""The sft stage as a Prefect task: open the inputs, run the chosen method, keep what it leaves."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import task

from tasks.cached import STAGE, key
from tasks.execute import Job, own_process, produce


@task(name="sft", task_run_name="sft: {job.method}", cache_key_fn=key, **STAGE)
def train_sft(job: Job) -> dict[str, str]:
    """Fine-tune the base on the kept rows, in a process of its own."""

    def work(out: Path, scratch: Path) -> dict[str, Any]:
        return own_process(job, out, scratch, {name: job.open(name) for name in ("worlds", "base", "filter")})

    return asdict(produce(job, work))
