"""The evaluate stage as a Prefect task: every model of the road, and the champion, on the same problems."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import task

from tasks.contract.params import StageFailed
from tasks.engine.cached import STAGE, key
from tasks.engine.champion import CHAMPION
from tasks.engine.execute import Job, own_process, produce


def models(job: Job) -> dict[str, Path]:
    """Every model of the road by name, in its order: base, sft_unfiltered (if there is one), sft, rl_<world> ..., merged."""
    control = job.open("sft") / "unfiltered/model"
    specialists = {f"rl_{folder.name}": folder / "model" for folder in sorted(job.open("rl").glob("*/"))}
    return {
        "base": job.open("base") / "model",
        **({"sft_unfiltered": control} if control.is_dir() else {}),
        "sft": job.open("sft") / "model",
        **specialists,
        "merged": job.open("merge") / "model",
    }


def champion(job: Job) -> Path | None:
    """The checkpoint of the champion that the candidate has to meet; None when there is none."""
    identity = job.key.parts["opponent"]
    if identity is None:
        return None
    try:
        return job.read(identity) / "model"
    except LookupError:
        raise StageFailed(
            f"{CHAMPION} names the champion {identity}, whose bytes are not in the store, or were damaged. "
            "`dvc pull` may bring them; `cairn champion --none` starts without a champion."
        ) from None


@task(name="evaluate", task_run_name="evaluate: {job.method}", cache_key_fn=key, **STAGE)
def evaluate_models(job: Job) -> dict[str, str]:
    """Play the test problems with every model, and fresh gate problems with the candidate and the champion."""

    def work(out: Path, scratch: Path) -> dict[str, Any]:
        inputs = {
            "worlds": job.open("worlds"),
            "models": models(job),
            "candidate": "merged",
            "candidate_id": job.inputs["merge"],
            "champion": champion(job),
        }
        return own_process(job, out, scratch, inputs)

    return asdict(produce(job, work))
