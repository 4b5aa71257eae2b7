"""How a stage is a Prefect task: its cache key is ours, its result is a handle, and its shards are no tasks of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prefect import State, Task, task
from prefect.client.schemas.objects import TaskRun, TaskRunResult
from prefect.context import FlowRunContext, TaskRunContext
from prefect.utilities.annotations import quote

from tasks.contract.client import CallFailed, NearlyAllLost
from tasks.engine.artifact import Artifact
from tasks.engine.job import Job
from tasks.engine.produce import produce

PARENTS = "__parents__"
"""The input of a task run that names those in which it was begun, by Prefect."""


def may_pass(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether a stage that failed is worth another try, where Prefect's settings allow some: a model's server that gave no answer may
    be back in minutes. Whatever else fails would fail again, and so would a run that nearly everything was lost of. Of a task within a
    stage's, such as a world's specialist, the stage is tried again."""
    error, within = (
        state.result(raise_on_failure=False),
        any(isinstance(one, TaskRunResult) for one in run.task_inputs.get(PARENTS, ())),
    )
    return isinstance(error, CallFailed) and not isinstance(error, NearlyAllLost) and not within


STAGE: dict[str, Any] = {
    "persist_result": True,
    "result_serializer": "json",
    "cache_result_in_memory": False,
    "retry_condition_fn": may_pass,
}
"""What every stage task has in common: a persisted, readable handle instead of pickled data, and when it is tried again."""


def key(context: TaskRunContext, inputs: dict[str, Any]) -> str:
    """Prefect's cache key of a stage task is the job's key (or its unit's)."""
    job: Job = inputs["job"]
    unit = inputs.get("unit")
    return unit.digest if unit is not None else job.key.digest


def room_task(room: str) -> Callable[[Callable[[Job, Path, Path], Mapping[str, Any]]], Task[[Job], dict[str, str]]]:
    """Decorator of a room's `run_step(job, out, scratch)`, which leaves the artifact in `out` and returns figures: the Prefect task
    that carries a job of the room out once and returns the artifact's handle. Its description is the docstring."""

    def made(work: Callable[[Job, Path, Path], Mapping[str, Any]]) -> Task[[Job], dict[str, str]]:
        @task(name=room, description=work.__doc__, task_run_name="{job.stage}: {job.method}", cache_key_fn=key, **STAGE)
        def run_step(job: Job) -> dict[str, str]:
            return asdict(produce(job, partial(work, job)))

        return run_step

    return made


def server_tags(job: Job) -> list[str]:
    """A tag for each model server that the stage asks, for a role or as the engine of its checkpoints, such as `model-server
    127.0.0.1:8000`: a limit that Prefect has for a tag is how many stages, of all runs, may ask that server at a time."""
    roles, engine = job.plan.settings.shared.roles, job.plan.settings.engine(job.stage)
    asked = [roles[name].base_url for name in job.plan.stages[job.stage].roles if name in roles]
    asked += [str(engine["params"].get("base_url", ""))] if engine else []
    return [f"model-server {place}" for place in sorted({urlsplit(one).netloc for one in asked}) if place]


def take(job: Job, after: Sequence[State[Any]] = ()) -> tuple[Artifact, State[Any]]:
    """Run a job as the task of its room, under the name of its step. Returns the artifact, and Prefect's state of it: for `after` of
    the steps that read it.

    What is in a job is none of Prefect's business (`quote`): it would take texts that two jobs share for edges between them.
    Prefect's record of a result counts only while the store has its bytes; otherwise it is refreshed.
    """
    if flow := FlowRunContext.get():
        flow.run_results.clear()  # results by their address alone: whatever lies there later would be an edge to them
    there = not job.refreshed and job.plan.store.find(job.key) is not None
    room_task: Task[..., dict[str, str]] = import_module(f"tasks.{job.plan.settings.room(job.stage)}.task").run_step
    state: State[Any] = room_task.with_options(name=job.stage, refresh_cache=not there, tags=server_tags(job))(
        quote(job), return_state=True, wait_for=[*after]
    )
    answer = Artifact(**state.result())
    return job.plan.store.find(job.key) or answer, state  # `cairn accept` may have bound the key anew since Prefect kept its handle
