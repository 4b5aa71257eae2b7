"""The sft stage as a Prefect task: open the inputs, run the chosen method, keep what it leaves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tasks.engine.cached import room_task
from tasks.engine.job import Job
from tasks.engine.running import own_process

CONTROL = "unfiltered"
"""Folder, unit and figures of the model that is trained on unfiltered rows."""


def inputs(job: Job) -> dict[str, Any]:
    """What the room's `Inputs` get."""
    return {"worlds": job.of("worlds"), "base": job.start(), "rows": job.rows()}


@room_task("sft")
def run_step(job: Job, out: Path, scratch: Path) -> dict[str, Any]:
    """Fine-tune the base on the kept rows, in a process of its own; beside it the control, where one is asked for."""
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
