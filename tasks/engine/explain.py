"""Why a stage would run: the key of each stage's last result is noted, so that the next miss can be explained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tasks.engine.files import read_json, write_text
from tasks.engine.job import Job
from tasks.engine.key import changed
from tasks.engine.plan import Plan

DAMAGED = "its artifact is missing or damaged"
LOST = "the record of its result is missing or damaged"


def why(plan: Plan, job: Job) -> list[str]:
    """Why a stage would run: which parts of its key differ from the last result of this workspace, or of experiments if the stage only
    ran in them (for an experiment: the other way round)."""
    if job.refreshed:
        return ["asked for with --refresh"]
    if plan.store.entry(job.key.digest):
        return [DAMAGED]
    mine, others = (last(plan, job.stage, kind) for kind in (plan.experiment, not plan.experiment))
    path = mine if mine.exists() else others
    old = (read_json(path) or {}).get("parts")
    if not isinstance(old, Mapping):
        return [LOST if path.exists() else "never ran here"]
    differs = list(changed(old, job.key.parts)) or [LOST]
    if path is others and differs != [LOST]:
        differs[0] = f"ran in {'the workspace' if plan.experiment else 'an experiment'} alone, with {differs[0]}"
    return differs


def last(plan: Plan, stage: str, experiment: bool = False) -> Path:
    """Where the key of a stage's last result is noted, the workspace's or the experiments'."""
    return plan.store.state / "last" / ("experiments" if experiment else "") / f"{stage}.json"


def remember(plan: Plan, job: Job) -> None:
    """Note a stage's key, the workspace's and the experiments' apart, so that the next miss can be explained."""
    path, now = last(plan, job.stage, plan.experiment), {"key": job.key.digest, "parts": job.key.parts}
    if read_json(path) != now:
        write_text(path, json.dumps(now))
