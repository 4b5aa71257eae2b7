"""The rl stage as Prefect tasks: one specialist per world, each cached on its own, and one artifact that holds them all."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import task
from prefect.utilities.annotations import quote

from tasks.engine.artifact import Artifact
from tasks.engine.cached import STAGE, key, room_task
from tasks.engine.hashes import folder_id
from tasks.engine.job import Job
from tasks.engine.key import Key
from tasks.engine.locks import lock, slot
from tasks.engine.produce import work_out
from tasks.engine.running import own_process
from tasks.rl.core import overview


def unit_key(job: Job, world: str, threads: int) -> Key:
    """The key of one world's specialist: the stage's key with that world alone among its inputs, and the threads it has.

    Adding, dropping or changing another world leaves it as it is, as long as that leaves it its threads.
    """
    (name,) = (name for name in job.inputs if job.plan.settings.room(name) == "worlds")
    files = job.plan.store.files(job.read_inputs[name]) or {}
    own = {path: md5 for path, md5 in files.items() if path.startswith(f"{world}/")}
    return Key({**job.key.parts, "inputs": {**job.read_inputs, name: folder_id(own)}, "unit": world, "threads": threads})


def inputs(job: Job, world: str) -> dict[str, Any]:
    """What the room's `Inputs` get for a world's specialist."""
    start = next(iter(job.checkpoints()))
    others = {name: job.open(name) for name in job.inputs if name != start and job.plan.settings.room(name) != "worlds"}
    return {
        "worlds": job.of("worlds"),
        "sft": job.start(world),
        "world": world,
        "blueprints": job.of("generate"),
        "others": others,
    }


@task(name="specialist", task_run_name="{job.stage}: {unit.parts[unit]}", cache_key_fn=key, **STAGE)
def reinforce_world(job: Job, unit: Key) -> dict[str, str]:
    """Train one world's specialist from the checkpoint that the inputs name, in a process of its own."""
    store, world = job.plan.store, unit.parts["unit"]
    with lock(store.state, f"key-{unit.digest[:32]}"):
        if not job.refreshed and (found := store.find(unit)):
            return asdict(found)

        def work(out: Path, scratch: Path) -> dict[str, Any]:
            return own_process(job, out, scratch, inputs(job, world), world, unit.parts["threads"])

        figures, identity = work_out(job, unit, work)
        done = store.record(unit, identity, {"figures": figures, "read": sorted(job.opened), "used": job.used.get(world, {})})
    return asdict(done)


@room_task("rl")
def run_step(job: Job, out: Path, scratch: Path) -> dict[str, Any]:
    """Reinforce a checkpoint in every world; the artifact has one folder per world and a table of all rewards."""
    store = job.plan.store
    worlds = [folder.name for folder in sorted(job.of("worlds").iterdir()) if folder.is_dir()]
    threads = max(1, job.plan.settings.shared.threads // len(worlds))  # the specialists are trained side by side
    units = [unit_key(job, world, threads) for world in worlds]
    device = job.plan.settings.shared.device
    with slot(store.state, device, 1 if device != "cpu" else max(1, len(os.sched_getaffinity(0)) // job.plan.settings.shared.threads)):
        futures: list[Any] = []
        for unit in units:
            if futures and device != "cpu":
                futures[-1].wait()  # one GPU's memory is for one training
            anew = job.refreshed or store.find(unit) is None
            one: Any = reinforce_world.with_options(refresh_cache=anew)
            futures.append(one.submit(quote(job), quote(unit)))
        specialists = [Artifact(**future.result()) for future in futures]
    figures = {}
    for unit, specialist in zip(units, specialists, strict=True):
        shutil.copytree(job.read(specialist.identity), out / unit.parts["unit"])
        entry = store.entry(unit.digest) or {}
        figures[unit.parts["unit"]] = entry.get("figures", {})
        job.used[unit.parts["unit"]] = entry.get("used", {})
    overview.write(out, worlds)
    return json.loads(json.dumps(figures))
