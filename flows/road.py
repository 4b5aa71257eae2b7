"""What both drivers share: a run under way, stage after stage, and the workspace brought up to date with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import given_problems, reserve
from flows.dvc_command import busy, dvc
from flows.model_checks import Asking, write_down
from tasks.contract.params import BadInput, StageFailed, brief, nearest
from tasks.engine import dvc_lock
from tasks.engine.artifact import Artifact, Store
from tasks.engine.dvc_yaml import DATA
from tasks.engine.explain import remember, why
from tasks.engine.files import sweep, write_text
from tasks.engine.job import Job, job_of, key_now
from tasks.engine.locks import lock
from tasks.engine.param_files import PIPELINE
from tasks.engine.plan import Plan
from tasks.road import ROAD, Road, Step

if TYPE_CHECKING:
    from prefect import State

    from flows.token_caps import Caps


def check_part(first: str, last: str, refresh: Sequence[str], names: Sequence[str] = ("first", "last", "refresh")) -> tuple[str, ...]:
    """The stages from `first` to `last`; BadInput for a stage that is none. names: what the caller calls the three."""
    if isinstance(refresh, str):
        raise BadInput(f"{names[2]} = {brief(refresh)}: expected a list of stages, such as [{refresh!r}]")
    for name, stage in ((names[0], first), (names[1], last), *((names[2], one) for one in refresh)):
        check_stage(stage, f"{name} {brief(stage)}: no such stage.")
    part = ROAD.part(first, last)
    if not part:
        raise BadInput(f"{names[0]} {first} lies after {names[1]} {last}")
    if outside := [one for one in refresh if one not in part]:
        raise BadInput(f"{names[2]} {outside[0]}: it does not run, the part from {first} to {last} does. Leave it out or widen that.")
    return part


def check_stage(stage: str, what: str) -> None:
    """Raise BadInput, which begins with `what`, for a stage that is none."""
    if stage not in ROAD.names:
        raise BadInput(f"{what}{nearest(str(stage), ROAD.names)} The road: {', '.join(ROAD.names)}.")


@dataclass
class Walk:
    """One run under way, step by step.

    first, last: the part of the road that may run; steps before it must be cached, steps after it are left out. done: step -> its
    artifact, as far as the walk has come.
    """

    plan: Plan
    first: str
    last: str
    asking: Asking = field(default_factory=Asking)
    done: dict[str, Artifact] = field(default_factory=dict)
    states: dict[str, State[Any]] = field(default_factory=dict)

    @property
    def road(self) -> Road:
        """The road that is walked."""
        return self.plan.settings.road

    @cached_property
    def caps(self) -> Caps:
        """What has been measured of this run; made when the first stage is about to run."""
        from flows.token_caps import Caps

        return Caps(self.plan)

    def take(self, step: Step) -> None:
        """Run a step, or find it cached, unless it lies beyond `last`."""
        from tasks.engine.cached import take

        stage = step.name
        if self.road.index(stage) > self.road.index(self.last):
            return
        known = {name: self.done[name].identity for name in step.inputs}
        job = job_of(self.plan, stage, known)
        found = job.find()
        if found is None and self.road.index(stage) < self.road.index(self.first):
            raise BadInput(f"first {self.first}: stage {stage!r} before it is not cached ({'; '.join(why(self.plan, job))}).")
        if found is None and self.plan.stages[stage].roles:  # who will be asked is part of the key
            self.plan = write_down(self.asking.before(self.plan, [stage]))
            job = job_of(self.plan, stage, known)
            found = job.find()
        if found:
            self.plan.watch(stage, "cached", {"identity": found.identity, "key": found.key})
        else:
            coming, there = self.road.part(stage, self.last), {name: one.identity for name, one in self.done.items()}
            given_problems.check(self.plan, coming, there)
            self.caps.check(coming, self.done)
            if self.road.judged in coming:
                reserve.check(self.plan, there)
        self.done[stage], self.states[stage] = take(job, [self.states[name] for name in step.inputs])
        remember(self.plan, job)


# --- the workspace ---------------------------------------------------------------------------------------------------


def extras(store: Store, plan: Plan, artifact: Artifact) -> dict[str, str]:
    """path -> identity of the files and folders of an artifact that also stand elsewhere in the workspace (metrics)."""
    found = {path: store.part(artifact.identity, Path(path).name) for path in plan.stages[artifact.stage].extra}
    return {path: identity for path, identity in found.items() if identity}


def lay_out(plan: Plan, artifacts: Iterable[Artifact]) -> list[str]:
    """Make the workspace's `data/` (and metrics) show these artifacts; returns the stages that had to be touched."""
    with lock(plan.store.state, "workspace"):
        return _lay_out(plan, artifacts)


def _lay_out(plan: Plan, artifacts: Iterable[Artifact]) -> list[str]:
    store, project, touched = plan.store, plan.settings.project, []
    for artifact in artifacts:
        moved = store.lay_out(artifact.identity, project / plan.stages[artifact.stage].out)
        moved |= any([store.lay_out_part(part, project / path) for path, part in extras(store, plan, artifact).items()])
        if moved:
            touched.append(artifact.stage)
    return touched


def behind(plan: Plan, done: Mapping[str, Artifact], jobs: Mapping[str, Job]) -> list[str]:
    """The stages whose entry in dvc.lock does not say what this run found."""
    project, tree = plan.settings.project, plan.settings.tree
    return [
        stage
        for stage, artifact in done.items()
        if not dvc_lock.up_to_date(
            *(project, plan.stages[stage], jobs[stage].key, tree, artifact.identity),
            *(extras(plan.store, plan, artifact), jobs[stage].inputs),
        )
    ]


def bring_up_to_date(plan: Plan, done: Mapping[str, Artifact]) -> list[str]:
    """Lay the artifacts out in the workspace and tell DVC; returns lines for people, none when there was nothing to do.

    `dvc commit` writes the code, params and files that are there *now*. So everything the run used is compared with the disk before
    it, and what DVC wrote is compared with what the run found after it; if anything moved, dvc.lock is left as it was, and
    `dvc status` will show the change. One lock covers all of it.
    """
    lines = []
    with lock(plan.store.state, "workspace"):
        if touched := _lay_out(plan, done.values()):
            lines.append(f"data/ brought up to date for {', '.join(touched)}")
        jobs = {stage: _job_now(plan, stage, done) for stage in done}
        if stages := behind(plan, done, jobs):
            lines.append(_tell_dvc(plan, done, jobs, stages))
    return lines


def _tell_dvc(plan: Plan, done: Mapping[str, Artifact], jobs: Mapping[str, Job], stages: Sequence[str]) -> str:
    path = plan.settings.project / "dvc.lock"
    stale = [stage for stage in stages if jobs[stage].key.digest != done[stage].key]
    if stale or plan.settings.tree != plan.reread():
        what = f"code or params of {', '.join(stale)}" if stale else PIPELINE
        return f"{what} changed during the run: dvc.lock was left as it was"
    old = path.read_text() if path.exists() else None
    try:
        answer = dvc(plan.settings.project, "commit", "--force", *stages)
    except BaseException:  # interrupted, and DVC with it, perhaps while it wrote
        _put_back(path, old)
        raise
    if answer.returncode:
        said = busy(plan.settings.project, answer.stderr or answer.stdout)
        return f"DVC could not be brought up to date ({said}); dvc.lock was left as it was, the next `cairn run` tries again"
    for stage in stages:  # DVC has linked the files anew: read now what moved, so that the next run has nothing to read
        plan.store.has(done[stage].identity)
        plan.store.hashes.listing(plan.settings.project / plan.stages[stage].out)
    if late := behind(plan, done, jobs):
        _put_back(path, old)
        return f"something of {', '.join(late)} changed while DVC looked at it: dvc.lock was left as it was"
    return f"dvc.lock updated for {', '.join(stages)}"


def _put_back(path: Path, old: str | None) -> None:
    path.unlink(missing_ok=True) if old is None else write_text(path, old)


def _job_now(plan: Plan, stage: str, done: Mapping[str, Artifact]) -> Job:
    inputs = {name: done[name].identity for name in plan.stages[stage].inputs}
    return Job(plan, stage, inputs, key_now(plan, stage, inputs))


def workspace_inputs(plan: Plan, stage: str) -> dict[str, str]:
    """Identities of a stage's inputs as they lie in the workspace (DVC's view); their bytes are taken into the store.

    StageFailed when an input was altered through the store's own file: DVC goes by size and time, and would bind what is made of it
    to the bytes that it believes are there.
    """
    found, noted = {}, dvc_lock.outs(plan.settings.project)
    for name in plan.stages[stage].inputs:
        folder = plan.settings.project / DATA / name
        if not folder.is_dir():
            raise BadInput(f"{DATA}{name} is missing: run stage {name!r} first, or `dvc repro {stage}` to run what it needs.")
        for half in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            sweep(half)
        found[name] = plan.store.put(folder)
        if (wanted := noted.get(f"{DATA}{name}", found[name])) != found[name]:
            _tell_altered(plan, name, folder, wanted)
    return found


def _tell_altered(plan: Plan, name: str, folder: Path, identity: str) -> None:
    """data/ is not what dvc.lock says: let DVC see it too, and stop where it is damage."""
    if plan.store.loses(identity):
        raise StageFailed(
            f"{DATA}{name} was altered on the disk, and the stored bytes with it; what was damaged was removed from the store. "
            f"`cairn run` or `dvc pull` puts it right; `dvc repro --force {name}` makes it again."
        )
    known = plan.store.files(identity) or {}
    for path, md5 in plan.store.hashes.listing(folder).items():
        if known.get(path) != md5:
            (folder / path).touch()  # a new time, without which DVC would take it for what it was
    plan.watch(name, "note", {"note": f"{DATA}{name} is not what dvc.lock says; what lies there is read"})


Watcher = Callable[[str, str, Mapping[str, Any]], None]


def everyone(*watchers: Watcher) -> Watcher:
    """One watcher that tells several."""

    def tell(stage: str, event: str, details: Mapping[str, Any]) -> None:
        for watcher in watchers:
            watcher(stage, event, details)

    return tell
