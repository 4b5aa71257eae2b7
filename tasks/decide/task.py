"""The decide stage as a Prefect task: a pure rule, from evidence to yes or no."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import task

from tasks.engine.cached import STAGE, key, submit
from tasks.engine.execute import Job, in_process, produce


@task(name="decide", task_run_name="decide: {job.method}", cache_key_fn=key, **STAGE)
def decide_promotion(job: Job) -> dict[str, str]:
    """Decide whether the merged model may become champion."""

    def work(out: Path, scratch: Path) -> dict[str, Any]:
        inputs = {
            "evaluate": job.open("evaluate"),
            "champion": job.key.parts["opponent"],
            "candidate": "merged",
            "candidate_id": job.inputs["merge"],
        }
        return in_process(job, out, scratch, inputs, submit)

    return asdict(produce(job, work))
