"""The active params as one checked value: `params/pipeline.yaml` and overrides.

A stage's section names its method and holds, under each method's name, what this profile wants of it:

    merge:
      method: breadcrumbs
      breadcrumbs: {keep: 0.3}

A room that trains has a section `loop` beside them: the params of its training loop, which all its methods share (`sft.loop`).

A method's value comes from the section, else from the default in its `Params`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from tasks.contract.context import seed_of
from tasks.contract.params import BadInput, Params, brief, check_plain, nearest, read_yaml, validate
from tasks.engine import layout, methods
from tasks.engine import project as project_file
from tasks.engine.check_players import check_device, check_instructions, check_roles
from tasks.engine.dotted import overlay
from tasks.engine.param_files import PIPELINE, profile_path
from tasks.engine.shared_params import ROLES, Shared
from tasks.engine.together import check_together
from tasks.road import ROAD, Road
from tasks.training.distributed import processes


@dataclass(frozen=True)
class Settings:
    """Checked params of one run. `tree` is what params/pipeline.yaml holds after overrides."""

    project: Path
    tree: Mapping[str, Any]
    source: str = PIPELINE
    reported: Mapping[str, Any] | None = None
    """what is in force of params/roles.lock, where that is not the file as it lies there: an experiment's, or before it is written"""
    road: Road = ROAD

    @cached_property
    def shared(self) -> Shared:
        """Seed, threads, roles and the rest that belongs to no stage. A key that is nobody's is told by `mistakes`."""
        own = {key: value for key, value in self.tree.items() if key in Shared.model_fields}
        shared = validate(Shared, own, self.source)
        for role in shared.roles:
            if role not in ROLES:
                raise BadInput(f"{self.source}: roles: unknown role {brief(role)}.{nearest(role, ROLES)} Known: {', '.join(ROLES)}.")
        return shared

    def room(self, stage: str) -> str:
        """The room whose methods a stage may use."""
        return self.road[stage].room

    def seed(self, stage: str) -> int:
        """The root of a stage's random streams: the `seed` of its section, else the road's. A step with another name than its room's
        mixes its name into the road's, so that two steps of one room are dealt different cards unless their sections say a seed."""
        own = self._section(stage).get("seed")
        if own is not None:
            return int(own)
        root = self.shared.seed
        return root if stage == self.room(stage) else seed_of(root, stage) % 2**31

    def method(self, stage: str) -> str:
        """The chosen method of a stage."""
        section = self._section(stage)
        where = f"{self.source}: {stage}.method"
        if "method" not in section:
            raise BadInput(f"{where} is missing. Known: {', '.join(methods.names(self.room(stage)))}.")
        return methods.check_name(self.room(stage), section["method"], where)

    def _section(self, stage: str) -> Mapping[str, Any]:
        section = self.tree.get(stage)
        if not isinstance(section, Mapping):
            added = stage not in self.tree and any(key == stage for key, _ in layout.NEW)
            hint = " It is new; `cairn migrate` writes it into the files of params/." if added else ""
            raise BadInput(f"{self.source}: the section {stage!r} is missing or not a mapping. A profile is one complete file.{hint}")
        room, loop = self.room(stage), methods.loop(self.room(stage))
        plays = methods.plays(room)
        has = {methods.LOOP: loop, methods.AGENTS: plays, methods.ENGINE: plays == "checkpoints"}
        has[methods.AS_SERVED] = methods.plays_as_served(room)
        extra = [name for name, there in has.items() if there]
        known = {"method", "seed", *methods.names(room), *extra}
        for key in section:
            if key not in known:
                if key == methods.LOOP:
                    raise BadInput(f"{self.source}: {stage}.loop: this room has no training loop. Remove the section.")
                if loop and key in loop.model_fields:
                    raise BadInput(
                        f"{self.source}: {stage}: unknown key {brief(key)}. It belongs to the training loop: {stage}.loop.{key}."
                    )
                under = f" A method's params stand under its name: {stage}.{section.get('method')}.{key}."
                own = section.get("method") in methods.names(room) and key in methods.load(room, section["method"]).Params.model_fields
                hint = under if own else nearest(key, known) or (under if len(key) < 80 else "")
                raise BadInput(f"{self.source}: {stage}: unknown key {brief(key)}.{hint} Known: {', '.join(sorted(known))}.")
        seed = section.get("seed", 0)
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**31:
            raise BadInput(f"{self.source}: {stage}.seed = {brief(seed)}: a whole number from 0 to {2**31 - 1}, or leave it out.")
        return section

    def params(self, stage: str) -> Params:
        """The chosen method's params, complete and checked."""
        return self._params(stage, self.method(stage))

    def _params(self, stage: str, name: str) -> Params:
        module = methods.load(self.room(stage), name)
        where = f"{self.source}: {stage}.{name}"
        values = _mapping(self._section(stage).get(name), where)
        loop = methods.loop(self.room(stage))
        for key in values.keys() & (loop.model_fields.keys() if loop else set()):
            raise BadInput(
                f"{where}.{key}: a param of the training loop, which all methods of {stage} share. It stands at {stage}.loop.{key}."
            )
        checked: Params = validate(module.Params, values, where)
        methods.check(module, checked, where)
        return checked

    def loop(self, stage: str) -> Params | None:
        """The params of the room's training loop, complete and checked; None for a room without one."""
        model = methods.loop(self.room(stage))
        if model is None:
            return None
        where = f"{self.source}: {stage}.loop"
        checked = validate(model, _mapping(self._section(stage).get(methods.LOOP), where), where)
        methods.check(methods.interface(self.room(stage)), checked, where)
        return checked

    def values(self, stage: str) -> dict[str, Any]:
        """Everything that the room's loop and the chosen method would use, as plain values: for people, and for the tracker."""
        loop, own = self.loop(stage), self.params(stage)
        return {**(loop.model_dump(mode="json") if loop else {}), **own.model_dump(mode="json")}

    def parts(self, stage: str) -> list[tuple[str, ModuleType, Params]]:
        """Who has a say about a stage's params: (dotted section, module, its params), the room before its method. A room has those of
        its training loop, or, without one, the method's."""
        name = self.method(stage)
        own, loop = self.params(stage), self.loop(stage)
        mine = f"{stage}.{name}"
        return [
            (f"{stage}.loop" if loop else mine, methods.interface(self.room(stage)), loop or own),
            (mine, methods.load(self.room(stage), name), own),
        ]

    def agents(self, stage: str) -> dict[str, Any] | None:
        """The way of acting of a stage that plays agents, {"method": its name, "params": complete}; None for any other stage."""
        if not methods.plays(self.room(stage)):
            return None
        known = {name: methods.load(methods.AGENTS, name) for name in methods.names(methods.AGENTS)}
        return self._choice(stage, methods.AGENTS, known, "way of acting", "how its agents act. Write agents: {method: react}")

    def engine(self, stage: str) -> dict[str, Any] | None:
        """The engine of a stage whose checkpoints play, {"method": its name, "params": complete}; None for any other stage."""
        if methods.plays(self.room(stage)) != "checkpoints":
            return None
        known = {name: methods.engine_module(name) for name in methods.engines()}
        return self._choice(stage, methods.ENGINE, known, "engine", "with what its checkpoints generate. Write engine: {method: own}")

    def as_served(self, stage: str) -> dict[str, Any] | None:
        """How a stage also plays its candidate as it is served, {"method": its name, "params": complete}; None for any other stage."""
        if not methods.plays_as_served(self.room(stage)):
            return None
        known = {name: methods.serving_module(name) for name in methods.servings()}
        hint = "whether the candidate is also played as it is served. Write as_served: {method: endpoint}"
        return self._choice(stage, methods.AS_SERVED, known, "way of serving", hint)

    def _choice(self, stage: str, key: str, known: Mapping[str, ModuleType], kind: str, hint: str) -> dict[str, Any]:
        """What a section of a stage's params chooses, {"method": its name, "params": complete and checked}; those of what is not chosen
        are checked as well."""
        where, section = f"{self.source}: {stage}.{key}", self._section(stage).get(key)
        if not isinstance(section, Mapping) or "method" not in section:
            raise BadInput(f"{where}.method is missing: {hint}. Known: {', '.join(known)}.")
        chosen = section["method"]
        if chosen not in known:
            raise BadInput(f"{where}.method: no {kind} {brief(chosen)}.{nearest(str(chosen), known)} Known: {', '.join(known)}.")
        checked = {chosen: known[chosen].Params()}
        for name, values in section.items():
            if name == "method":
                continue
            if name not in known:
                raise BadInput(f"{where}: unknown key {brief(name)}.{nearest(name, known)} Known: method, {', '.join(known)}.")
            checked[name] = validate(known[name].Params, _mapping(values, f"{where}.{name}"), f"{where}.{name}")
        if hasattr(known[chosen], "check"):
            known[chosen].check(checked[chosen], f"{where}.{chosen}")
        return {"method": chosen, "params": checked[chosen].model_dump(mode="json")}

    def check(self, whole: bool = True, here: bool = True) -> None:
        """Look at everything once, so that a mistake ends the run before the first stage starts: also at the sections of methods that
        are not chosen now, (whole) at what params of different stages say together, and (here) at this machine."""
        if mistake := next(self.mistakes(), ""):
            raise BadInput(mistake)
        shared = self.shared
        chosen = {stage: self.params(stage) for stage in self.road.names}
        if whole:
            check_together(self, chosen)
        check_roles(shared, self.project, self.source)
        if here:
            self.check_machine()

    def check_machine(self) -> None:
        """Raise BadInput where this machine has not the device, not enough of them, or not the instructions."""
        loops = [loop.model_dump() for step in self.road.names if (loop := self.loop(step))]
        check_device(self.shared.device, f"{self.source}: device", max(map(processes, loops), default=1))
        check_instructions(self.shared.instructions, f"{self.source}: instructions")

    def mistakes(self) -> Iterator[str]:
        """What is wrong in a section by itself, on any machine: one message for each section, also of methods that are not chosen."""
        where = (self.tree, self.source, self.road)
        if why := layout.refusal(*where) or project_file.missing_worlds(self.project, *where):
            yield why
        known = {*self.road.names, *Shared.model_fields}
        for step in self.road:
            if step.name in Shared.model_fields:
                yield f"tasks/road.py: step {step.name!r}: a section of the params has this name that is no step's. Name it otherwise."
        for key in self.tree:
            if key not in known:
                yield f"{self.source}: unknown key {brief(key)}.{nearest(key, known)} Known: {', '.join(sorted(known))}."
        for section in ("", *self.road.names):
            try:
                self._check_section(section)
            except BadInput as mistake:
                yield str(mistake)

    def _check_section(self, stage: str) -> None:
        """The chosen method's params, then those of methods that are not chosen now; "": what belongs to no stage."""
        if not stage:
            _ = self.shared
            return
        chosen = self.method(stage)
        self.loop(stage)
        self.agents(stage)
        self.engine(stage)
        self.as_served(stage)
        apart = {"method", "seed", methods.LOOP, methods.AGENTS, methods.ENGINE, methods.AS_SERVED, chosen}
        for name in (chosen, *sorted(self._section(stage).keys() - apart)):
            self._params(stage, name)


def _mapping(values: Any, where: str) -> Mapping[str, Any]:
    """A section's params; none where nothing stands below its name. BadInput when it is anything else."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise BadInput(f"{where}: expected a mapping of params, got {brief(values)}")
    return values


def load(project: Path, profile: str = "", overrides: Sequence[tuple[str, Any]] = ()) -> Settings:
    """The active params, or a profile's, with overrides on top; unchecked until `Settings.check`."""
    path = profile_path(project, profile) if profile else project / PIPELINE
    tree = read_yaml(path)
    if not isinstance(tree, Mapping):
        raise BadInput(f"{path}: expected a mapping of params")
    if profile:
        project_file.fill(tree, project_file.read(project))
    for key, value in overrides:
        if not isinstance(key, str):
            raise BadInput(f"override {brief(key)}: a param is named by a dotted key, such as sft.loop.epochs")
        check_plain(value, f"override {brief(key)}")  # a form or a caller gives it, not only YAML
        for moved in layout.outdated(overlay({}, key, value)):
            raise BadInput(f"--set {brief(key)}: {moved}")
        tree = overlay(tree, key, value)
    return Settings(project, tree, str(path.relative_to(project)))
