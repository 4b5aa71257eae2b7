"""The merge stage as a Prefect task: open the inputs, run the chosen method, keep what it leaves."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import task

from tasks.engine.cached import STAGE, key, submit
from tasks.engine.execute import Job, in_process, produce


@task(name="merge", task_run_name="merge: {job.method}", cache_key_fn=key, **STAGE)
def merge_models(job: Job) -> dict[str, str]:
    """Merge the specialists into one model."""

    def work(out: Path, scratch: Path) -> dict[str, Any]:
        experts = {f"rl_{folder.name}": folder / "model" for folder in sorted(job.open("rl").glob("*/"))}
        return in_process(job, out, scratch, {"base": job.open("sft") / "model", "experts": experts}, submit)

    return asdict(produce(job, work))
