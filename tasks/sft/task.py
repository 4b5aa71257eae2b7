"""The sft stage as a Prefect task: open the inputs, run the chosen method, keep what it leaves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import task

from tasks.engine.cached import STAGE, key
from tasks.engine.job import Job
from tasks.engine.produce import produce
from tasks.engine.running import own_process

CONTROL = "unfiltered"
"""Folder, unit and figures of the model that is trained on unfiltered rows."""


def inputs(job: Job) -> dict[str, Any]:
    """What the room's `Inputs` get."""
    return {"worlds": job.of("worlds"), "base": job.start(), "filter": job.of("filter")}


@task(name="sft", task_run_name="{job.stage}: {job.method}", cache_key_fn=key, **STAGE)
def run_step(job: Job) -> dict[str, str]:
    """Fine-tune the base on the kept rows, in a process of its own; beside it the control, where one is asked for."""

    def work(out: Path, scratch: Path) -> dict[str, Any]:
        if not (job.loop and job.loop.model_dump()["control"]):
            return own_process(job, out, scratch, inputs(job))
        threads = max(1, job.plan.settings.shared.threads // 2)
        folders = [(out, scratch), (out / CONTROL, scratch / CONTROL)]
        for folder in folders[1]:
            folder.mkdir(parents=True, exist_ok=True)
        side_by_side = job.plan.settings.shared.device == "cpu"  # one GPU's memory is for one training
        with ThreadPoolExecutor(2 if side_by_side else 1) as pool:
            both = [
                pool.submit(own_process, job, *folder, {**inputs(job), "unfiltered": unfiltered}, unit, threads)
                for folder, unfiltered, unit in zip(folders, (False, True), ("", CONTROL), strict=True)
            ]
            figures, control = (future.result() for future in both)
        return {**figures, CONTROL: control}

    return asdict(produce(job, work))
