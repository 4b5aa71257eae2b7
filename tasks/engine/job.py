"""A stage's job: its key, taken before the work, the artifacts it reads, and the comparison of both with the disk after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tasks.contract.params import Params, StageFailed
from tasks.engine import dvc_lock, methods, reserve, roles_lock, sources
from tasks.engine.artifact import Artifact, Store
from tasks.engine.closure import WORLDS
from tasks.engine.key import Key, canonical, changed, key_of
from tasks.engine.plan import Plan
from tasks.engine.together import ROW_ROOMS
from tasks.road import ROAD
from tasks.worlds import UNSEEN

if TYPE_CHECKING:
    from tasks.checkpoints.adapters import Base


class Changed(RuntimeError):
    """Code or inputs changed while a stage ran: its result was not recorded."""


def job_of(plan: Plan, stage: str, inputs: Mapping[str, str]) -> Job:
    """A stage's job, given the identities of its inputs. `Changed` when the code is no longer what it was at the start."""
    key = key_now(plan, stage, inputs)
    moved = [path for path, md5 in key.parts["code"].items() if md5 != plan.code.get(path)]
    if moved:
        raise Changed(f"{', '.join(moved)} changed since this run started; stage {stage!r} was not run with half-old code. Run again.")
    return Job(plan, stage, dict(inputs), key)


def key_now(plan: Plan, stage: str, inputs: Mapping[str, str]) -> Key:
    """The key of a stage's result with all that counts as it is now. inputs: stage -> identity of its artifact, whole."""
    return key_of(plan.settings, plan.stages[stage], as_read(plan, stage, inputs), plan.store.hashes)


def as_read(plan: Plan, stage: str, inputs: Mapping[str, str]) -> dict[str, str]:
    """The identities of what a stage reads of its inputs: of frozen worlds, unless its room's interface says READS_UNSEEN, those alone
    that training may see, so that a stage neither finds the others nor hangs on them; and the reserve that its candidate met."""
    settings, found = plan.settings, {**inputs, **reserve_met(plan, stage, inputs)}
    if methods.reads_unseen(settings.room(stage)):
        return found
    return {name: plan.store.without(one, UNSEEN) if settings.room(name) == WORLDS else one for name, one in found.items()}


def reserve_met(plan: Plan, stage: str, inputs: Mapping[str, str]) -> dict[str, str]:
    """Input -> identity of the proven problems that the candidate among the inputs was evaluated with first in the same worlds, as
    params/reserve_used.yaml has it; empty for a candidate of which nothing is noted, and for a stage that does not read that file."""
    road = plan.settings.road
    name, worlds = (road.input(stage, room) for room in ("generate", WORLDS))
    if reserve.USED not in plan.stages[stage].files or not {name, worlds, road.candidate} <= {*inputs}:
        return {}
    noted = reserve.read(plan.settings.project / reserve.USED)
    met = noted.first_reserve(inputs[road.candidate], plan.store.without(inputs[worlds], UNSEEN))
    return {name: met} if met else {}


def identities(store: Store, entry: Mapping[str, Any]) -> set[str]:
    """The identities by which the keys of later stages may name the result of a recorded one: its own, and as `as_read` has it."""
    whole = entry["identity"]
    return {whole, store.without(whole, UNSEEN)} if entry["parts"]["stage"] in ROAD.entering(WORLDS) else {whole}


@dataclass(frozen=True)
class Job:
    """One stage to be done. Its key is taken when it is made. inputs: stage -> identity of its artifact, whole."""

    plan: Plan
    stage: str
    inputs: Mapping[str, str]
    key: Key
    opened: dict[str, Path] = field(default_factory=dict, compare=False)
    """identity -> folder of every artifact that this job read and hashed: what its result is made of"""
    used: dict[str, Mapping[str, Any]] = field(default_factory=dict, compare=False)
    """unit -> what its process used of the machine (`tasks.engine.usage.used`); "" for a job that is one process"""

    @property
    def read_inputs(self) -> Mapping[str, str]:
        """Stage -> identity of what this one reads of its artifact (`as_read`)."""
        found: Mapping[str, str] = self.key.parts["inputs"]
        return found

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
            return self.read(self.read_inputs[stage])
        except LookupError:
            raise StageFailed(
                f"the input {stage!r} ({self.read_inputs[stage]}) is not in the store as it should be, and what was damaged was "
                "removed; run again to make it, or `dvc pull`."
            ) from None

    def read(self, identity: str) -> Path:
        """`open` for an artifact by its identity. LookupError when its bytes are gone or damaged."""
        if identity not in self.opened:
            self.opened[identity] = self.plan.store.read(identity)
        return self.opened[identity]

    def of(self, room: str) -> Path:
        """`open` for the one input that a step of this room left."""
        return self.open(self.plan.settings.road.input(self.stage, room))

    def rows(self) -> Path:
        """`open` for the one input with rows to train on (`together.ROWS`)."""
        return self.open(
            next(name for name in self.plan.settings.road[self.stage].inputs if self.plan.settings.room(name) in ROW_ROOMS)
        )

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

    def with_bases(self) -> dict[str, Path]:
        """identity -> folder of every artifact that this job read, with those of the bases of adapters among them: read as well."""
        from tasks.checkpoints import adapters  # its imports take half a second, and not every run comes here

        plan, settings = self.plan, self.plan.stages[self.stage].settings
        players = plan.settings.shared.players()
        local = [
            plan.settings.project / one.path for name, _, one in players if one.path and f"roles.{name.partition('/')[0]}" in settings
        ]
        for folder in (*self.opened.values(), *local):
            for about in [file for place in ("", "*/", "*/*/") for file in sorted(folder.glob(f"{place}{adapters.BASE}"))]:
                if (base := adapters.base_of(about.parent)) and base.artifact:
                    self._read_base(base, about.parent)
        return dict(self.opened)

    def _read_base(self, base: Base, folder: Path) -> None:
        try:
            self.read(base.artifact)
        except LookupError:
            raise StageFailed(
                f"{folder} is an adapter, and its base ({base}) is not in the store, or was damaged. `dvc pull` may bring it; running "
                "the step that left it makes it anew."
            ) from None

    def source(self) -> Path | None:
        """What its method reads from outside of the project, where it lies now; None for a method that reads its inputs alone."""
        found = sources.of_stage(self.plan.settings, self.stage)
        return None if found is None else sources.resolve(found, self.plan.settings.project, self.plan.store)

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
        plan = self.plan
        if not plan.stages[self.stage].out:
            return None
        identity = dvc_lock.held(
            plan.settings.project,
            plan.stages[self.stage],
            self.key,
            plan.settings.tree,
            lambda inputs: as_read(plan, self.stage, inputs),
        )
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
            "engine": self.plan.settings.engine(self.stage),
            "as_served": self.plan.settings.as_served(self.stage),
            "inputs": _jsonable(inputs),
            "unit": unit,
            "seed": seen["seed"],
            "threads": shared.threads,
            "instructions": seen.get("instructions", "avx2"),
            "device": shared.device,
            "out": str(out),
            "scratch": str(scratch),
            "prompt": seen.get("prompt"),
            "state": str(self.plan.store.state),
            "run": self.key.digest,
            "artifacts": {identity: str(folder) for identity, folder in self.with_bases().items()},
            "ledger": self.plan.ledger,
            "budget": shared.budget.model_dump(),
            "losses": shared.losses.model_dump(),
            "roles": {
                name: configured(
                    role.model_dump(mode="json"), self.plan.settings.project, name, self.key.parts["servers"].get(name) or {}
                )
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
            names = {identity: name for name, identity in self.read_inputs.items()}
            raise Changed(
                f"stage {self.stage!r}: bytes of {', '.join(names.get(one, one) for one in altered)} were altered on the disk while it "
                "read them, so its result was not recorded and what was damaged was removed. Run again."
            )
        now = key_now(self.plan, self.stage, self.inputs)
        moved = [*changed(self.key.parts, now.parts), *(f"code: {path}" for path in self.moved_worlds())]
        if moved:
            if workbench:
                self.plan.store.clear_workbench(workbench)
            raise Changed(f"stage {self.stage!r}: changed while it ran, so its result was not recorded: {'; '.join(moved)}. Run again.")

    def moved_worlds(self) -> list[str]:
        """Code of the worlds that is not what it was when this run started, for a stage that reads worlds: their hash is in its key as
        it was when they were frozen."""
        plan = self.plan
        code = (path for name in self.inputs if plan.settings.room(name) == WORLDS for path in plan.stages[name].code)
        return [path for path in code if plan.store.hashes.path(plan.settings.project / path) != plan.code.get(path)]


def configured(role: Mapping[str, Any], project: Path, name: str, reports: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a player with whole paths and what its server said of the model. reports: of all players of the role."""
    others = [configured(one, project, f"{name}/{number}", reports) for number, one in enumerate(role["others"], 2)]
    report = reports.get(name) or {}
    said = {"reported": canonical(report) if report else "", "revision": role["identity"] or roles_lock.revision(report) or "unpinned"}
    return {**role, **said, "path": str(project / role["path"]), "others": others}


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _jsonable(item) for name, item in value.items()}
    return str(value) if isinstance(value, Path) else value
