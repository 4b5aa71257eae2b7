"""From a stage's name to its artifact: the plan of a run, a stage's job, and the one way a job is carried out.

The order of things makes law 1 hold: the code is hashed before any method is imported, the key is taken before the work, and code
and inputs are compared again after it. What changed meanwhile is named, and nothing is recorded.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from tasks.contract.client import NearlyAllLost
from tasks.contract.context import Context, Losses
from tasks.contract.params import BadInput, Params, StageFailed
from tasks.engine import dvc_lock, methods, roles_lock, versions
from tasks.engine import server_keys as keys
from tasks.engine.artifact import Artifact, Store
from tasks.engine.closure import WORLDS, check_closure
from tasks.engine.dvc_yaml import Listed, listed
from tasks.engine.files import read_json, write_text
from tasks.engine.key import Key, canonical, changed, key_of
from tasks.engine.locks import lock
from tasks.engine.settings import SERVER, Settings, asked, dig

LANES = 8
"""Shards under way when a model behind a server plays a role: while one waits for its last answer others keep the server busy. Ours;
how many calls are in flight is the client's business."""
DAMAGED = "its artifact is missing or damaged"
LOST = "the record of its result is missing or damaged"


class Changed(RuntimeError):
    """Code or inputs changed while a stage ran: its result was not recorded."""


_first_seen: dict[Path, str] = {}
"""Code as it was when this process first looked at it, before it imported any method. A later plan of the same process (the flow's,
after the command's survey) must not pair newer bytes with the modules that are already loaded."""


@dataclass(frozen=True)
class Plan:
    """One run: checked params, the list of code as it was when the process started, and the store.

    experiment: the params are not those of the workspace; `data/`, `params/` and `dvc.lock` stay as they are.
    refresh: stages that are computed even when they are cached.
    """

    settings: Settings
    store: Store
    stages: Mapping[str, Listed]
    code: Mapping[str, str]
    experiment: bool = False
    refresh: frozenset[str] = frozenset()
    watch: Callable[[str, str, Mapping[str, Any]], None] = field(default=lambda stage, event, about: None)
    """told of every event: (stage, event, facts); events: started, progress, cached, adopted, done, failed"""

    @classmethod
    def open(cls, settings: Settings, state: Path, whole: bool = True, **more: Any) -> Plan:
        """Hash the code first, then look at the params (which imports methods). Names of methods are parts of paths: before both.
        whole: the road may be run to its end, so what its stages say together is looked at too; False for a search of single ones."""
        for stage in settings.road.names:
            settings.method(stage)
        store = Store(state)
        stages = listed(settings)
        code = {}
        for path in {path for about in stages.values() for path in about.code}:
            if (settings.project / path).exists():
                code[path] = _first_seen.setdefault(settings.project / path, store.hashes.path(settings.project / path))
        plan = cls(settings, store, stages, code, **more)
        settings.check(whole)
        _check_local_roles(settings, store)
        for about in stages.values():
            _check_listed(settings, about)
            for file in about.files:
                if not (settings.project / file).is_file():
                    raise BadInput(f"{file} is missing: dvc.yaml tracks it for stage {about.stage!r}. A file that says `{{}}` will do.")
        return replace(plan, settings=roles_lock.recalled(settings, state))

    def check_closures(self, stages: Iterable[str]) -> None:
        """Compare the imports of these stages with their deps now, not when their turn comes after hours; look for the keys that their
        roles need, and at the versions that are installed."""
        versions.check(self.settings.project)
        for stage in stages:
            check_closure(self.settings, self.stages[stage])
            for name, said, role in self.settings.shared.players():
                if f"roles.{name.partition('/')[0]}" in self.stages[stage].settings:
                    keys.check(role.model_dump(), f"{self.settings.source}: {said}")

    def job(self, stage: str, inputs: Mapping[str, str]) -> Job:
        """A stage's job, given the identities of its inputs. `Changed` when the code is no longer what it was at the start."""
        key = key_of(self.settings, self.stages[stage], inputs, self.store.hashes)
        moved = [path for path, md5 in key.parts["code"].items() if md5 != self.code.get(path)]
        if moved:
            raise Changed(
                f"{', '.join(moved)} changed since this run started; stage {stage!r} was not run with half-old code. Run again."
            )
        return Job(self, stage, dict(inputs), key)

    def reread(self) -> Any:
        """What params/pipeline.yaml holds now."""
        from tasks.contract.params import read_yaml
        from tasks.engine.settings import PIPELINE

        return read_yaml(self.settings.project / PIPELINE)

    @property
    def run_key(self) -> str:
        """Names this run for the tracker: the same params, code and versions give the same one, in every process."""
        return self._digest(self.settings.tree)

    @property
    def ledger(self) -> str:
        """Under which name this run's calls to servers are paid. Neither the budget, nor how much may be lost, nor how a model is
        reached is part of it, so that with a larger budget, or at another port, the run goes on from what it has spent; all stages
        share it."""
        tree = {name: value for name, value in self.settings.tree.items() if name not in ("budget", "losses")}
        return self._digest({**tree, "roles": {name: asked(role) for name, role in self.settings.shared.roles.items()}})

    def _digest(self, tree: Mapping[str, Any]) -> str:
        versions = (self.settings.project / "params/versions.yaml").read_text()
        return Key({"tree": tree, "code": self.code, "versions": versions}).digest


def _check_local_roles(settings: Settings, store: Store) -> None:
    """DVC sees the params and not the checkpoint's folder; so the params must name the bytes."""
    for _, said, role in settings.shared.players():
        if role.backend == "local" and role.identity != (found := store.hashes.path(settings.project / role.path)):
            raise BadInput(
                f"{settings.source}: {said}.identity = {role.identity!r}: the bytes in {role.path} are {found!r}. "
                "Write that, so that a change of the checkpoint is a change of the params, for Cairn and for DVC."
            )


def _check_listed(settings: Settings, about: Listed) -> None:
    missing = [path for path in about.code if not (settings.project / path).exists()]
    if missing:
        raise BadInput(f"dvc.yaml: stage {about.stage!r}: deps that do not exist: {', '.join(missing)}")
    for key in about.settings:
        try:
            dig(settings.tree, key)
        except KeyError:
            raise BadInput(
                f"{settings.source}: {key!r} is missing; dvc.yaml tracks it for stage {about.stage!r}. A profile is one complete file."
            ) from None


@dataclass(frozen=True)
class Job:
    """One stage to be done. Its key is taken when it is made."""

    plan: Plan
    stage: str
    inputs: Mapping[str, str]
    key: Key
    opened: dict[str, Path] = field(default_factory=dict, compare=False)
    """identity -> folder of every artifact that this job read and hashed: what its result is made of"""

    @property
    def method(self) -> str:
        """The chosen method's name."""
        return str(self.key.parts["method"])

    @cached_property
    def params(self) -> Params:
        """The method's params, complete."""
        return self.plan.settings.params(self.stage)

    @cached_property
    def loop(self) -> Params | None:
        """The params of the room's training loop, complete; None for a room without one."""
        return self.plan.settings.loop(self.stage)

    @property
    def module(self) -> ModuleType:
        """The method's module."""
        return methods.load(self.plan.settings.room(self.stage), self.method)

    @property
    def refreshed(self) -> bool:
        """Whether this run asked for the stage to be computed again."""
        return self.stage in self.plan.refresh

    def open(self, stage: str) -> Path:
        """Folder with an input's files, each byte read and hashed now. StageFailed when they are gone or damaged."""
        try:
            return self.read(self.inputs[stage])
        except LookupError:
            raise StageFailed(
                f"the input {stage!r} ({self.inputs[stage]}) is not in the store as it should be, and what was damaged was removed; "
                "run again to make it, or `dvc pull`."
            ) from None

    def read(self, identity: str) -> Path:
        """`open` for an artifact by its identity. LookupError when its bytes are gone or damaged."""
        if identity not in self.opened:
            self.opened[identity] = self.plan.store.read(identity)
        return self.opened[identity]

    def of(self, room: str) -> Path:
        """`open` for the one input that a step of this room left."""
        road = self.plan.settings.road
        (name,) = (name for name in self.plan.stages[self.stage].inputs if road[name].room == room)
        return self.open(name)

    def checkpoints(self) -> dict[str, dict[str, Path]]:
        """input -> name -> folder of every checkpoint that it left, for the inputs that left one, in the road's order."""
        found = {name: self.left(self.inputs[name], name) for name in self.plan.stages[self.stage].inputs}
        return {name: {model: self.open(name) / path for model, path in models.items()} for name, models in found.items() if models}

    def start(self, unit: str = "") -> Path:
        """Folder with the `model/` that a training begins with: what its first input with checkpoints left, of that unit if it did one
        for each (a specialist goes on from its own world's)."""
        models = next(iter(self.checkpoints().values()))
        own = next((path for path in models.values() if unit and path.parent.name == unit), None)
        return (own or list(models.values())[-1]).parent

    def left(self, identity: str, stage: str = "") -> dict[str, str]:
        """name -> path of every checkpoint in an artifact of a stage (this one): of its units, sorted, then its own."""
        step = self.plan.settings.road[stage or self.stage]
        files = self.plan.store.files(identity) or {}
        found = sorted(path.removesuffix("/config.json") for path in files if path.endswith("model/config.json"))
        units = {step.checkpoint(path.removesuffix("/model")): path for path in found if path.count("/") == 1}
        return {**units, **({step.checkpoint(): "model"} if "model" in found else {})}

    def file(self, path: str) -> Path:
        """A listed file that people edit (an input that is no artifact)."""
        if path not in self.plan.stages[self.stage].code:
            raise ValueError(f"{path} is not among the deps of {self.stage!r} in dvc.yaml")
        return self.plan.settings.project / path

    def find(self) -> Artifact | None:
        """The artifact if it is there already: under the key, or held unchanged by DVC (adopted)."""
        if self.refreshed:
            return None
        if found := self.plan.store.find(self.key):
            return found
        identity = dvc_lock.held(self.plan.settings.project, self.plan.stages[self.stage], self.key, self.plan.settings.tree)
        if identity and (self.plan.store.has(identity) or self._rescued(identity)):
            self.plan.watch(self.stage, "adopted", {"identity": identity})
            return self.plan.store.record(self.key, identity, {"adopted": True, "figures": {}})
        return None

    def _rescued(self, identity: str) -> bool:
        """Take an artifact that lies in the workspace into a store that lacks it (another CAIRN_HOME, or a damaged object)."""
        folder = self.plan.settings.project / self.plan.stages[self.stage].out
        return folder.is_dir() and self.plan.store.hashes.path(folder) == identity and self.plan.store.put(folder) == identity

    def spec(self, out: Path, scratch: Path, inputs: Mapping[str, Any], unit: str = "") -> dict[str, Any]:
        """Everything a method's run needs, as JSON: a process of its own can be started from it."""
        shared = self.plan.settings.shared
        seen = self.key.parts["settings"]
        return {
            "stage": self.stage,
            "room": self.plan.settings.room(self.stage),
            "method": self.method,
            "params": self.params.model_dump(mode="json"),
            "loop": self.loop.model_dump(mode="json") if self.loop else None,
            "agents": self.plan.settings.agents(self.stage),
            "inputs": _jsonable(inputs),
            "unit": unit,
            "seed": seen["seed"],
            "threads": shared.threads,
            "device": shared.device,
            "out": str(out),
            "scratch": str(scratch),
            "prompt": seen.get("prompt"),
            "state": str(self.plan.store.state),
            "run": self.key.digest,
            "ledger": self.plan.ledger,
            "budget": shared.budget.model_dump(),
            "losses": shared.losses.model_dump(),
            "roles": {
                name: _found(role.model_dump(mode="json"), self.plan.settings.project, name, self.key.parts["servers"].get(name) or {})
                for name, role in shared.roles.items()
                if f"roles.{name}" in self.plan.stages[self.stage].settings
            },
        }

    def ears(self, unit: str = "") -> tuple[Callable[..., None], Callable[..., None]]:
        """(log, progress) that tell the run's watcher."""

        def log(name: str, value: float, step: int) -> None:
            self.plan.watch(self.stage, "log", {"name": f"{unit}/{name}" if unit else name, "value": value, "step": step})

        def progress(done: int, total: int, note: str = "") -> None:
            self.plan.watch(self.stage, "progress", {"done": done, "total": total, "note": f"{unit} {note}".strip()})

        return log, progress

    def check_unchanged(self, workbench: str = "") -> None:
        """Law 1, the second half: compare what the result depends on with what it was before the work, the bytes it read included.

        workbench: the key whose work in progress is thrown away when something changed, since edited code may have written it.
        """
        altered = [identity for identity in self.opened if not self.plan.store.intact(identity)]
        if altered:
            if workbench:
                self.plan.store.clear_workbench(workbench)
            names = {identity: name for name, identity in self.inputs.items()}
            raise Changed(
                f"stage {self.stage!r}: bytes of {', '.join(names.get(one, one) for one in altered)} were altered on the disk while it "
                "read them, so its result was not recorded and what was damaged was removed. Run again."
            )
        now = key_of(self.plan.settings, self.plan.stages[self.stage], self.inputs, self.plan.store.hashes)
        moved = [*changed(self.key.parts, now.parts), *(f"code: {path}" for path in self.moved_worlds())]
        if moved:
            if workbench:
                self.plan.store.clear_workbench(workbench)
            raise Changed(f"stage {self.stage!r}: changed while it ran, so its result was not recorded: {'; '.join(moved)}. Run again.")

    def moved_worlds(self) -> list[str]:
        """Code of the worlds that is not what it was when this run started, for a stage that reads worlds: their hash is in its key as
        it was when they were frozen."""
        if WORLDS not in self.inputs:
            return []
        plan = self.plan
        return [
            path for path in plan.stages[WORLDS].code if plan.store.hashes.path(plan.settings.project / path) != plan.code.get(path)
        ]


def _found(role: Mapping[str, Any], project: Path, name: str, reports: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a player with whole paths and what its server said of the model. reports: of all players of the role."""
    others = [_found(one, project, f"{name}/{number}", reports) for number, one in enumerate(role["others"], 2)]
    report = reports.get(name) or {}
    said = {"reported": canonical(report) if report else "", "revision": role["identity"] or roles_lock.revision(report) or "unpinned"}
    return {**role, **said, "path": str(project / role["path"]), "others": others}


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _jsonable(item) for name, item in value.items()}
    return str(value) if isinstance(value, Path) else value


Work = Callable[[Path, Path], Mapping[str, Any]]
"""work(out, scratch) leaves the artifact in `out` and returns figures."""


def produce(job: Job, work: Work) -> Artifact:
    """Carry a job out, once: other processes with the same key wait and then find the result.

    Raises Changed when code or inputs changed under it; whatever `work` raises passes through. In both cases nothing is recorded;
    after a failure `scratch` stays for the next attempt.
    """
    plan, key = job.plan, job.key
    with lock(plan.store.state, f"key-{key.digest[:32]}", lambda text: plan.watch(job.stage, "waiting", {"note": text})):
        if found := job.find():
            return found
        versions.check(plan.settings.project)
        check_closure(plan.settings, plan.stages[job.stage])
        if moved := job.moved_worlds():
            raise Changed(
                f"{', '.join(moved)} changed since this run started; stage {job.stage!r} was not run on older worlds. Run again."
            )
        plan.watch(job.stage, "started", {"key": key.digest, "method": job.method})
        start = time.monotonic()
        figures, identity = work_out(job, key, work)
        about = {"figures": figures, "seconds": round(time.monotonic() - start, 3), "method": job.method}
        done = plan.store.record(key, identity, {**about, "read": sorted(job.opened)})
    plan.watch(job.stage, "done", {"identity": identity, "checkpoints": list(job.left(identity)), **about})
    return done


def work_out(job: Job, key: Key, work: Work) -> tuple[dict[str, Any], str]:
    """Do a job's work (or, under a key of its own, a part of it) on a workbench; (figures, identity) of what it left.

    What the job opens is hashed before the work, and compared after it. See `produce`, whose caller holds the key's lock.
    """
    store = job.plan.store
    if job.refreshed:
        store.clear_workbench(key.digest)
    out, scratch = store.workbench(key.digest, filter(None, job.inputs.values()))
    _check_players(job)
    try:
        figures = dict(work(out, scratch))
    except Exception:
        job.check_unchanged(key.digest)  # it may have failed on bytes that were altered: then that is what has to be said
        raise
    job.check_unchanged(key.digest)
    identity = store.put(out)
    store.clear_workbench(key.digest)
    return figures, identity


def _check_players(job: Job) -> None:
    """A checkpoint in this process that plays a role is read by name: its bytes must be those that the params name."""
    for _, said, role in job.plan.settings.shared.players():
        if role.backend == "local" and ".".join(said.partition("[")[0].split(".")[:2]) in job.plan.stages[job.stage].settings:
            path = job.plan.settings.project / role.path
            if (found := job.plan.store.hashes.path(path, trust=False)) != role.identity:
                raise StageFailed(f"{said}.identity = {role.identity!r}: the bytes in {role.path} are {found!r} now. Was it altered?")


def sharded(scratch: Path, submit: Callable[..., Any] | None = None, window: int = 1) -> Callable[..., Iterator[Any]]:
    """`Context.shards` that keeps each finished shard's result in `scratch`, so that a killed run goes on with the next one.

    submit(work, shard) hands a shard to a task runner and returns something with `.result()`; at most `window` are under way: one by
    default, since scripts share the interpreter and a local model its threads.
    """

    def shards(name: str, work: Callable[[Sequence[Any]], Any], items: Sequence[Any], size: int) -> Iterator[Any]:
        folder = scratch / "shards" / name
        pieces = [items[start : start + size] for start in range(0, len(items), size)]
        waiting: list[tuple[Path, Any]] = []
        ahead = 0
        for index in range(len(pieces)):
            while ahead < len(pieces) and ahead < index + window:
                path = folder / f"{ahead:06d}.json"
                waiting.append((path, None if read_json(path) else _start(submit, work, pieces[ahead])))
                ahead += 1
            path, pending = waiting.pop(0)
            if pending is not None:
                write_text(path, json.dumps({"result": pending.result()}))
            yield json.loads(path.read_text(encoding="utf-8"))["result"]

    return shards


@dataclass
class _Later:
    work: Callable[[Sequence[Any]], Any]
    items: Sequence[Any]

    def result(self) -> Any:
        return self.work(self.items)


def _start(submit: Callable[..., Any] | None, work: Callable[[Sequence[Any]], Any], items: Sequence[Any]) -> Any:
    return submit(work, items) if submit else _Later(work, items)


def context(spec: Mapping[str, Any], log: Callable[..., None], progress: Callable[..., None], shards: Callable[..., Any]) -> Context:
    """The surroundings of a method's run, from a job's spec."""
    from tasks.players.acting import acting
    from tasks.players.openai_compatible import Setting
    from tasks.players.roles import maker

    state = Path(spec["state"]) if "state" in spec else None  # a spec written by hand may do without a place for paid answers
    losses = Losses(**spec.get("losses") or {})
    setting = Setting(state, spec.get("run", ""), spec.get("ledger", ""), spec.get("budget") or {}, losses)
    role = maker(spec["roles"], spec["inputs"].get("worlds"), spec["seed"], keys.of, setting, spec["device"])
    prompt = spec["prompt"] or {}
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
        agent=acting(role, prompt, methods.way(spec.get("agents"))),
        prompt=prompt,
        losses=losses,
    )


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


def in_process(job: Job, out: Path, scratch: Path, inputs: Mapping[str, Any], submit: Callable[..., Any] | None) -> dict[str, Any]:
    """Run the job's method here; its shards go through `submit`. For methods that need no training loop of a library."""
    log, progress = job.ears()
    spec = job.spec(out, scratch, inputs)
    if not _served(spec):
        return call(spec, context(spec, log, progress, sharded(scratch, submit)))
    from tasks.players.openai_compatible import stats

    with calls_told(spec, job.plan.watch, progress) as heard:
        try:
            figures = call(spec, context(spec, log, heard, sharded(scratch, submit, LANES)))
        except (NearlyAllLost, StageFailed):
            shutil.rmtree(scratch / "shards", ignore_errors=True)  # what was lost is asked again; what was answered is kept elsewhere
            raise
        return {**figures, "spent": stats(job.key.digest)}


def _served(spec: Mapping[str, Any]) -> bool:
    """Whether a server plays a role of this run."""
    return any(one["backend"] == SERVER for role in spec["roles"].values() for one in (role, *role.get("others", ())))


@contextmanager
def calls_told(spec: Mapping[str, Any], watch: Callable[..., None], progress: Callable[..., None]) -> Iterator[Callable[..., None]]:
    """While the block runs, the watcher hears how calls to servers go, if one plays a role of the run. Gives the progress to hand to
    the method."""
    if not _served(spec):
        yield progress
        return
    from tasks.engine.call_figures import telling

    with telling(watch, spec["stage"], spec["run"], progress) as heard:
        yield heard


def own_process(job: Job, out: Path, scratch: Path, inputs: Mapping[str, Any], unit: str = "", threads: int = 0) -> dict[str, Any]:
    """Run the job's method in a process of its own. `threads`: instead of the shared setting, when several run side by side."""
    from tasks.engine import process

    spec = job.spec(out, scratch, inputs, unit)
    log, progress = job.ears(unit)
    spec["threads"] = threads or spec["threads"]
    return process.run(spec, job.plan.settings.project, log, progress, lambda about: job.plan.watch(job.stage, "calls", about))


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
