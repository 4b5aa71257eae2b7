"""The decide stage as a Prefect task: a pure rule, from evidence to yes or no."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import task

from tasks.engine.cached import STAGE, key, submit
from tasks.engine.execute import Job, in_process, produce


@task(name="decide", task_run_name="{job.stage}: {job.method}", cache_key_fn=key, **STAGE)
def run_step(job: Job) -> dict[str, str]:
    """Decide whether the candidate may become champion."""

    def work(out: Path, scratch: Path) -> dict[str, Any]:
        candidate = job.plan.settings.road.candidate
        inputs = {
            "evaluate": job.of("evaluate"),
            "champion": job.key.parts["opponent"],
            "candidate": job.plan.settings.road[candidate].checkpoint(),
            "candidate_id": job.inputs[candidate],
        }
        return in_process(job, out, scratch, inputs, submit)

    return asdict(produce(job, work))
