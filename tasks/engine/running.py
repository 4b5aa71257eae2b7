"""A method's run from a job's spec: its surroundings, and whether it runs in this process or in one of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.contract.client import NearlyAllLost
from tasks.contract.context import Context, Losses
from tasks.contract.params import StageFailed
from tasks.engine import methods
from tasks.engine import server_keys as keys
from tasks.engine.job import Job
from tasks.engine.shards import sharded
from tasks.engine.shared_params import SERVER
from tasks.players.local.generation import Place

LANES = 8
"""Shards under way when a model behind a server plays a role: while one waits for its last answer others keep the server busy. Ours;
how many calls are in flight is the client's business."""


def context(spec: Mapping[str, Any], log: Callable[..., None], progress: Callable[..., None], shards: Callable[..., Any]) -> Context:
    """The surroundings of a method's run, from a job's spec."""
    from tasks.players.acting import acting
    from tasks.players.openai_compatible import Setting
    from tasks.players.roles import maker

    state = Path(spec["state"]) if "state" in spec else None  # a spec written by hand may do without a place for paid answers
    losses = Losses(**spec.get("losses") or {})
    setting = Setting(state, spec.get("run", ""), spec.get("ledger", ""), spec.get("budget") or {}, losses)
    artifacts = {identity: Path(folder) for identity, folder in (spec.get("artifacts") or {}).items()}
    role = _named(maker(spec["roles"], spec["inputs"].get("worlds"), spec["seed"], keys.of, setting, spec["device"], artifacts), spec)
    prompt = spec["prompt"] or {}
    way = methods.way(spec.get("agents"))
    engine = methods.engine(spec.get("engine"), Place(Path(spec["scratch"]) / "engine", keys.of))
    return Context(
        seed=spec["seed"],
        out=Path(spec["out"]),
        scratch=Path(spec["scratch"]),
        device=spec["device"],
        threads=spec["threads"],
        log=log,
        progress=progress,
        shards=shards,
        role=role,
        agent=acting(role, prompt, way, methods.of_checkpoint(spec["room"], engine)),
        prompt=prompt,
        losses=losses,
        artifacts=artifacts,
        as_served=_as_served(spec, prompt, way, artifacts),
    )


def _as_served(spec: Mapping[str, Any], prompt: Mapping[str, str], way: Callable[..., Any], artifacts: Mapping[str, Path]) -> Any:
    if not (chosen := spec.get("as_served")):
        return None
    worlds, engine = Path(spec["inputs"]["worlds"]), spec["engine"]["method"]
    return methods.as_served(chosen, engine, worlds, prompt, way, artifacts=artifacts, device=spec["device"])


def _named(role: Callable[..., Any], spec: Mapping[str, Any]) -> Callable[..., Any]:
    """`Context.role` for the roles that the room's interface names. Another one would be played by a script that no params choose and
    no key holds; so in rl nobody but the checkpoint that is trained acts, whose token ids it needs."""

    def named(name: str, world: str = "") -> Any:
        if name.partition("/")[0] not in spec["roles"]:
            raise StageFailed(
                f"{spec['stage']}/{spec['method']} asked for the role {name!r}, which the interface of its room does not name "
                f"(ROLES in tasks/{spec['room']}/__init__.py: {', '.join(spec['roles']) or 'none'}), so no key would hold who plays it."
            )
        return role(name, world)

    return named


def call(spec: Mapping[str, Any], ctx: Context) -> dict[str, Any]:
    """Run a method from a spec: validate its params and the loop's, build the room's inputs, run."""
    room, name = spec["room"], spec["method"]
    params = methods.load(room, name).Params.model_validate(spec["params"])
    shared = methods.loop(room)
    loop = shared.model_validate(spec["loop"]) if shared else None
    return methods.run(room, name, {key: _path(value) for key, value in spec["inputs"].items()}, params, loop, ctx)


def _path(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _path(item) for name, item in value.items()}
    return Path(value) if isinstance(value, str) and value.startswith("/") else value


def in_process(job: Job, out: Path, scratch: Path, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Run the job's method here, for methods that need no training loop of a library. Shards that ask a server go side by side."""
    log, progress = job.ears()
    spec = job.spec(out, scratch, inputs)
    if not _served(spec):
        return call(spec, context(spec, log, progress, sharded(scratch)))
    from tasks.players.openai_compatible import stats

    with calls_reported(spec, job.plan.watch, progress) as counted:
        try:
            figures = call(spec, context(spec, log, counted, sharded(scratch, window=LANES)))
        except (NearlyAllLost, StageFailed):
            shutil.rmtree(scratch / "shards", ignore_errors=True)  # what was lost is asked again; what was answered is kept elsewhere
            raise
        return {**figures, "spent": stats(job.key.digest)}


def _served(spec: Mapping[str, Any]) -> bool:
    """Whether a server plays a role of this run."""
    return any(one["backend"] == SERVER for role in spec["roles"].values() for one in (role, *role.get("others", ())))


@contextmanager
def calls_reported(spec: Mapping[str, Any], watch: Callable[..., None], progress: Callable[..., None]) -> Iterator[Callable[..., None]]:
    """While the block runs, the watcher hears how calls to servers go, if one plays a role of the run. Gives the progress to hand to
    the method."""
    if not _served(spec):
        yield progress
        return
    from tasks.engine.call_figures import telling

    with telling(watch, spec["stage"], spec["run"], progress) as counted:
        yield counted


def own_process(job: Job, out: Path, scratch: Path, inputs: Mapping[str, Any], unit: str = "", threads: int = 0) -> dict[str, Any]:
    """Run the job's method in a process of its own. `threads`: instead of the shared setting, when several run side by side."""
    from tasks.engine import process

    spec = job.spec(out, scratch, inputs, unit)
    log, progress = job.ears(unit)
    spec["threads"] = threads or spec["threads"]

    def calls(details: Mapping[str, Any]) -> None:
        job.plan.watch(job.stage, "calls", details)

    def used(details: Mapping[str, Any]) -> None:
        job.used[unit] = details

    return process.run(spec, job.plan.settings.project, log, progress, calls, used)
