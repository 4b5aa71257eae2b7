"""The form by which Prefect's UI asks for a run: what may be chosen, what each choice means, and the checks of what came back.

Prefect compares a run's parameters with these schemas when the run is created; what it cannot compare is checked in the first second of
the flow. Read from the methods' own `Params`: nothing of it is said twice.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any

from pydantic import WithJsonSchema

from flows import PROJECT
from flows.profiles import about
from tasks.contract.params import BadInput, Params, brief, read_yaml
from tasks.engine import methods
from tasks.engine import project as project_file
from tasks.engine.dotted import parse_override
from tasks.engine.param_files import PIPELINE, profile_path, profiles
from tasks.engine.shared_params import Shared
from tasks.road import ROAD
from tasks.worlds.api.loading import BUILT_IN

WORKSPACE = "workspace"
"""What the form calls the active params, which are no profile's."""
AS_IN_PROFILE = "Left empty: as in the profile."
BREAK = "\n\n"
"""What the form of Prefect's UI shows as one line break; of a single one it makes a space."""

SHARED = ("seed", "threads")
"""The params of no stage that have a field of their own in the form. None of `promote`: a run with overrides promotes nothing."""
COMMON = {
    "worlds": ("freeze.modules", "freeze.size"),
    "base": ("checkpoint.source", "checkpoint.identity"),
    "generate": ("apigen_mt.problems", "apigen_mt.attempts"),
    "critique": ("multicritique.aggregator", "multicritique.margin"),
    "filter": ("rejection_sampling.min_score", "rejection_sampling.policy"),
    "sft": ("loop.epochs", "loop.learning_rate", "loop.batch_tokens", "loop.max_steps"),
    "rl": ("loop.steps", "loop.lr", "loop.groups", "loop.group_size", "loop.temperature", "loop.max_episode_tokens"),
    "merge": ("breadcrumbs.keep", "breadcrumbs.trim_top", "breadcrumbs.alpha"),
    "evaluate": ("pass_k.problems", "pass_k.gate_problems", "pass_k.trials"),
    "decide": ("paired_gate.aim", "paired_gate.too_few", "paired_gate.min_pass_1"),
}
"""Room -> those of its steps' params that have one, beside the method. Any other param is a line of `more_overrides`."""


def _profile_schema() -> dict[str, Any]:
    """The profiles, each with the first sentence of its file."""
    lines = [f"- **{WORKSPACE}**: {PIPELINE}, the active params; only such a run brings data/ and dvc.lock up to date, and promotes"]
    lines += [f"- **{name}**: {about(name)}." for name in profiles(PROJECT)]
    text = "The complete params that the run begins with. A profile's run is an experiment, which promotes nothing."
    return {"type": "string", "enum": [WORKSPACE, *profiles(PROJECT)], "description": BREAK.join([text, *lines])}


def _stage_schema(text: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(ROAD.names), "description": text}


def _refresh_schema() -> dict[str, Any]:
    text = "Stages to compute again though their results are cached; they must lie between first and last."
    return {"type": "array", "items": {"type": "string", "enum": list(ROAD.names)}, "uniqueItems": True, "description": text}


def overrides_schema() -> dict[str, Any]:
    """A field for the method of each step and for each of its common params, typed and described as in the `Params` that own it."""
    fields = {key: _param_schema(Shared, key) for key in SHARED}
    for step in ROAD:
        fields[f"{step.name}.method"] = _method_schema(step.room)
        for key in COMMON.get(step.room, ()):
            fields[f"{step.name}.{key}"] = _param_schema(*_owner(step.room, key))
    text = f"The common params. {AS_IN_PROFILE} A run with any of them is an experiment, which promotes nothing."
    properties = {key: {**field, "title": key, "position": number} for number, (key, field) in enumerate(fields.items())}
    return {"type": "object", "properties": properties, "description": text}


def _method_schema(room: str) -> dict[str, Any]:
    known = methods.names(room)
    lines = [f"- **{name}**: {methods.header(room, name).title}" for name in known]
    return {"type": "string", "enum": list(known), "description": BREAK.join([AS_IN_PROFILE, *lines])}


def _param_schema(model: type[Params], name: str) -> dict[str, Any]:
    schema = dict(model.model_json_schema()["properties"][name])
    text = schema.pop("description", "")
    for gone in ("default", "title"):
        schema.pop(gone, None)
    lines = []
    if name == "modules":
        known = sorted(_worlds())
        schema |= {"items": {"type": "string", "enum": known}, "uniqueItems": True}
        lines = [f"- **{world}**: {said}" for world in known if (said := _about_world(world))]
    if schema.get("type") == "boolean":
        schema = {"enum": [True, False]}  # a choice, for a switch that nobody touched looks as if it were off
    return {**schema, "description": BREAK.join([f"{_sentence(text)} {AS_IN_PROFILE}" if text else AS_IN_PROFILE, *lines])}


def _sentence(text: str) -> str:
    """A param's description as a sentence for people who have not read how methods are written: `ours` is there what no paper says."""
    plain = re.sub(r"\bours\b", "Cairn's own value", text)
    return f"{plain[:1].upper()}{plain[1:]}."


def _owner(room: str, key: str) -> tuple[type[Params], str]:
    """The model that a room's param, such as `loop.steps`, is a field of, and the field's name."""
    section, name = key.split(".")
    model = methods.loop(room) if section == methods.LOOP else methods.load(room, section).Params
    if model is None:
        raise LookupError(f"{key}: the room {room} has no training loop")
    return model, name


def _worlds() -> Iterator[str]:
    """The worlds that are known here: the built-in ones, the project's, and those that its params name."""
    own = project_file.read(PROJECT)
    found = {*BUILT_IN, *(own.worlds if own else ())}
    for path in (PROJECT / PIPELINE, *(profile_path(PROJECT, name) for name in profiles(PROJECT))):
        tree = read_yaml(path)
        for stage in ROAD.entering("worlds"):
            section = tree.get(stage) if isinstance(tree, Mapping) else None
            for params in section.values() if isinstance(section, Mapping) else ():
                if isinstance(params, Mapping):
                    found |= {one for key in ("modules", "unseen") for one in params.get(key) or () if isinstance(one, str)}
    yield from found


def _about_world(address: str) -> str:
    """The first words of the docstring of a world's class, up to a full stop or a colon, read without running its code; "" of a world
    whose code lies elsewhere or cannot be read."""
    module, _, name = address.partition(":")
    place = PROJECT.joinpath(*module.split("."))
    for file in (place.with_suffix(".py"), place / "__init__.py"):
        with suppress(OSError, SyntaxError, ValueError):
            for one in ast.parse(file.read_bytes()).body:
                if isinstance(one, ast.ClassDef) and one.name == name:
                    return " ".join(re.split(r"[.:](?:\s|$)", ast.get_docstring(one) or "")[0].split())
    return ""


LINES = [
    "Any other param, one a line, as `key = value` with the value in YAML; lines that begin with # count for nothing:",
    "\n    merge.breadcrumbs.keep = 0.3",
    "    roles.human.errors = {forgets: 0.1}",
]
FIRST = [
    "The first stage that may run; those before it must have a cached result.",
    *(f"- **{step.name}**: {step.summary}" for step in ROAD),
]
LAST = "The last stage to run: one of the stages above, the first one or a later one."

Profile = Annotated[str, WithJsonSchema(_profile_schema())]
First = Annotated[str, WithJsonSchema(_stage_schema(BREAK.join(FIRST)))]
Last = Annotated[str, WithJsonSchema(_stage_schema(LAST))]
Refresh = Annotated[Sequence[str], WithJsonSchema(_refresh_schema())]
Overrides = Annotated[Mapping[str, Any], WithJsonSchema(overrides_schema())]
Lines = Annotated[str, WithJsonSchema({"type": "string", "description": BREAK.join(LINES)})]


def profile_of(profile: object) -> str:
    """A profile's name as the rest of Cairn has it: "" for the active params. BadInput for what is no text."""
    if not isinstance(profile, str):
        raise BadInput(f"profile = {brief(profile)}: expected the name of one. Known: {', '.join([WORKSPACE, *profiles(PROJECT)])}.")
    return "" if profile == WORKSPACE else profile


def all_overrides(overrides: object, lines: object) -> dict[str, Any]:
    """Both fields of the form as one mapping of dotted keys to values; a field that was emptied (null) counts for nothing. BadInput for
    a line that is no `key = value`, and for a key that is given twice."""
    if not isinstance(overrides, Mapping):
        raise BadInput(f"overrides = {brief(overrides)}: expected a mapping of dotted keys to values, such as seed: 2")
    if not isinstance(lines, str):
        raise BadInput(f"more_overrides = {brief(lines)}: expected text, one `key = value` a line, such as seed = 2")
    found = {key: value for key, value in overrides.items() if value is not None}
    for line in map(str.strip, lines.splitlines()):
        if line and not line.startswith("#"):
            key, value = parse_override(line, "more_overrides: ")
            if key in found:
                raise BadInput(f"more_overrides: {key} is given twice, with {brief(found[key])} and {brief(value)}. Keep one.")
            found[key] = value
    return found
