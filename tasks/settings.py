"""The active params as one checked value: `params/pipeline.yaml`, the chosen methods' own files, and overrides.

A stage's section names its method and holds, under each method's name, what this profile wants of it:

    merge:
      method: breadcrumbs
      breadcrumbs: {keep: 0.3}

A method's value comes from the section, else from `params/<stage>/<method>.yaml`, else from the default in its `Params`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from tasks import STAGES, methods
from tasks.params import BadInput, Params, YamlLoader, nearest, read_yaml, validate

PIPELINE = "params/pipeline.yaml"


class Prompt(Params):
    """How much the agent's system prompt carries."""

    tools: Literal["full", "names", "none"] = Field("full", description="tool schemas, names alone, or nothing")
    policy: Literal["full", "none"] = Field("full", description="the world's policy text, or nothing")


class Role(Params):
    """Who plays a model's role."""

    backend: Literal["scripted", "local"] = Field("scripted", description="a script, or a checkpoint in this process")
    path: str = Field("", description="folder of the checkpoint, for backend local")
    identity: str = Field("", description="identity of that folder's bytes, so that both drivers see a change of them")
    errors: dict[str, float] = Field({}, description="rate in [0, 1] of each systematic error of the script")


ROLES = (
    "generator",
    "judge",
    "feedback",
    "recombiner",
    "human",
    "human_critic",
    "agent",
    "critic",
    "meta_critic",
    "aggregator",
)


class Promote(Params):
    """What happens after the decision."""

    model: str = Field("cairn-agent", min_length=1, description="name in the registry")
    approval: Literal["auto", "manual"] = Field("auto", description="move the alias at once, or wait for `cairn promote`")


class Shared(Params):
    """The params that belong to no single stage."""

    profile: str = Field("", description="name of the profile this file was made from")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="root of every random stream")
    threads: int = Field(1, ge=1, le=256, description="CPU threads of a training or an evaluation; part of the key")
    device: Literal["cpu", "cuda"] = Field("cpu", description="where tensors live")
    prompt: Prompt = Prompt()
    roles: dict[str, Role] = Field({}, description="backend of each role; scripted where not named")
    promote: Promote = Promote()


def dig(tree: Any, dotted: str) -> Any:
    """The value at a dotted key; KeyError when there is none."""
    for part in dotted.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            raise KeyError(dotted)
        tree = tree[part]
    return tree


def overlay(tree: Mapping[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    """A copy of `tree` with one value replaced or added."""
    head, _, rest = dotted.partition(".")
    found = tree.get(head)
    below = found if isinstance(found, Mapping) else {}
    return {**tree, head: overlay(below, rest, value) if rest else value}


def parse_override(text: str) -> tuple[str, Any]:
    """'sft.sft.epochs=2' as (key, value); the value is read as YAML."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise BadInput(f"--set {text!r}: expected key=value, for example --set sft.sft.epochs=2")
    try:
        return key.strip(), yaml.load(value, Loader=YamlLoader)
    except yaml.YAMLError:
        raise BadInput(f"--set {text!r}: {value!r} is not a YAML value") from None


@dataclass(frozen=True)
class Settings:
    """Checked params of one run. `tree` is what params/pipeline.yaml holds after overrides."""

    project: Path
    tree: Mapping[str, Any]
    source: str = PIPELINE

    @cached_property
    def shared(self) -> Shared:
        """Seed, threads, roles and the rest that belongs to no stage."""
        own = {key: value for key, value in self.tree.items() if key not in STAGES}
        shared = validate(Shared, own, self.source)
        for role in shared.roles:
            if role not in ROLES:
                raise BadInput(f"{self.source}: roles: unknown role {role!r}.{nearest(role, ROLES)} Known: {', '.join(ROLES)}.")
        return shared

    def method(self, stage: str) -> str:
        """The chosen method of a stage."""
        section = self._section(stage)
        where = f"{self.source}: {stage}.method"
        if "method" not in section:
            raise BadInput(f"{where} is missing. Known: {', '.join(methods.names(stage))}.")
        return methods.check_name(stage, section["method"], where)

    def _section(self, stage: str) -> Mapping[str, Any]:
        section = self.tree.get(stage)
        if not isinstance(section, Mapping):
            raise BadInput(f"{self.source}: the section {stage!r} is missing or not a mapping. A profile is one complete file.")
        known = {"method", *methods.names(stage)}
        for key in section:
            if key not in known:
                hint = nearest(key, known) or f" A method's params stand under its name: {stage}.{section.get('method')}.{key}."
                raise BadInput(f"{self.source}: {stage}: unknown key {key!r}.{hint} Known: {', '.join(sorted(known))}.")
        return section

    def params(self, stage: str) -> Params:
        """The chosen method's params, complete and checked."""
        name = self.method(stage)
        module = methods.load(stage, name)
        own_file = self.project / "params" / stage / f"{name}.yaml"
        defaults = (read_yaml(own_file) or {}) if own_file.exists() else {}
        values = self._section(stage).get(name) or {}
        for where, part in ((str(own_file.relative_to(self.project)), defaults), (f"{self.source}: {stage}.{name}", values)):
            if not isinstance(part, Mapping):
                raise BadInput(f"{where}: expected a mapping of params, got {part!r}")
            validate(module.Params, {**defaults, **part}, where)
        checked: Params = validate(module.Params, {**defaults, **values}, f"{self.source}: {stage}.{name}")
        if hasattr(module, "check"):
            module.check(checked)
        return checked

    def check(self) -> None:
        """Look at everything once, so that a mistake ends the run before the first stage starts."""
        known = {*STAGES, *Shared.model_fields}
        for key in self.tree:
            if key not in known:
                raise BadInput(f"{self.source}: unknown key {key!r}.{nearest(key, known)} Known: {', '.join(sorted(known))}.")
        shared = self.shared
        for stage in STAGES:
            self.params(stage)
        self._check_roles(shared)

    def _check_roles(self, shared: Shared) -> None:
        from tasks.llm import roles as players

        for name, role in shared.roles.items():
            where = f"{self.source}: roles.{name}"
            if role.backend == "local" and not (self.project / role.path / "config.json").is_file():
                raise BadInput(f"{where}.path = {role.path!r}: not a checkpoint folder (no config.json in it)")
            known = players.errors(name)
            for error, rate in role.errors.items():
                if error not in known:
                    raise BadInput(
                        f"{where}.errors: unknown error {error!r}.{nearest(error, known)} Known: {', '.join(known) or 'none'}."
                    )
                if not 0 <= rate <= 1:
                    raise BadInput(f"{where}.errors.{error} = {rate}: a rate is between 0 and 1")


def load(project: Path, profile: str = "", overrides: Sequence[tuple[str, Any]] = ()) -> Settings:
    """The active params, or a profile's, with overrides on top; unchecked until `Settings.check`."""
    path = profile_path(project, profile) if profile else project / PIPELINE
    tree = read_yaml(path)
    if not isinstance(tree, Mapping):
        raise BadInput(f"{path}: expected a mapping of params")
    for key, value in overrides:
        tree = overlay(tree, key, value)
    return Settings(project, tree, str(path.relative_to(project)))


def profiles(project: Path) -> tuple[str, ...]:
    """Names of the complete profiles of a project."""
    return tuple(sorted(path.stem for path in (project / "params" / "profiles").glob("*.yaml")))


def profile_path(project: Path, name: str) -> Path:
    """A profile's file, or BadInput with the known names."""
    known = profiles(project)
    if name not in known:
        raise BadInput(f"no profile {name!r}.{nearest(name, known)} Known: {', '.join(known)}.")
    return project / "params" / "profiles" / f"{name}.yaml"
