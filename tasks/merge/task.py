"""The merge stage as a Prefect task: open the inputs, run the chosen method, keep what it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.engine.cached import room_task
from tasks.engine.job import Job
from tasks.engine.running import in_process
from tasks.merge.core.wholes import mergeable


def inputs(job: Job, scratch: Path) -> dict[str, Any]:
    """What the room's `Inputs` get."""
    first, *others = job.checkpoints().values()
    base = list(first.values())[-1]  # its own one; those of its units come before
    return mergeable(base, {name: path for models in others for name, path in models.items()}, job.with_bases(), scratch)


@room_task("merge")
def run_step(job: Job, out: Path, scratch: Path) -> dict[str, Any]:
    """Merge what its inputs left: the first one's checkpoint is the base, those of all others the experts."""
    return in_process(job, out, scratch, inputs(job, scratch))
