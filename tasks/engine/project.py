"""`project.yaml`: what a project that `cairn init` made says of itself. Cairn's own checkout has none.

Profiles are Cairn's files and the same in every project. What they leave open, which worlds to train on and what the model is called,
is filled in from here when a profile is read (`cairn use NAME`, `cairn run --profile NAME`); what a profile says itself stands, but for
roles that it leaves to scripts: a world around an API has none, and a project of such a world says who plays them instead.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from tasks.contract.params import BadInput, Params, is_file, read_yaml, validate
from tasks.engine.shared_params import NOBODY, ROLES, Role
from tasks.road import ROAD, Road

FILE = "project.yaml"
ROLES_SAID = f"{FILE}: roles"
"""Where it says who plays, for messages about whoever plays as it says."""
ROOM = "worlds"
"""The room whose stages freeze worlds."""


class Project(Params):
    """The keys of project.yaml."""

    name: str = Field(min_length=1, description="what people call the project")
    model: str = Field(min_length=1, description="name in the MLflow registry: promote.model of profiles that name none")
    worlds: list[str] = Field(
        min_length=1,
        description="worlds as 'package.module:Class': the `modules` of stages that freeze worlds, in profiles that name none",
    )
    roles: Role | None = Field(
        None,
        description="who plays the roles that a profile leaves to scripts, as under `roles` in the params: for worlds without scripts",
    )


def read(folder: Path) -> Project | None:
    """The project's file; None where there is none. BadInput when it cannot be used."""
    if not is_file(folder / FILE):
        return None
    tree = read_yaml(folder / FILE)
    if not isinstance(tree, Mapping):
        raise BadInput(f"{FILE}: expected the keys {', '.join(Project.model_fields)}.")
    return validate(Project, tree, FILE)


def fill(tree: Any, own: Project | None, road: Road = ROAD) -> None:
    """Write into a profile's mappings what it leaves open: its worlds, the model's name."""
    if own is None or not isinstance(tree, dict):
        return
    for stage in road.entering(ROOM):
        section = tree.get(stage)
        if isinstance(section, dict) and isinstance(section.get("method"), str):
            _first(section.setdefault(section["method"], {}), "modules", list(own.worlds))
    _first(tree.setdefault("promote", {}), "model", own.model)
    if own.roles is not None and isinstance(roles := tree.setdefault("roles", {}), dict):
        _cast(roles, own.roles.model_dump(exclude_unset=True))


def _cast(roles: Any, player: Mapping[str, Any]) -> None:
    """Let the player play every role that is left to a script."""
    for name in ROLES:
        config = roles.get(name, {"backend": NOBODY} if name == "contender" else {})
        if isinstance(config, dict) and config.get("backend", "scripted") == "scripted":
            written = hasattr(roles, "ca")  # a mapping that keeps comments
            roles[name] = _in_one_line(player) if written else dict(player)
            for token in filter(None, roles.ca.items.get(name, ()) if written else ()):
                token.value = "\n" + token.value.partition("\n")[2]  # the comment was about the script


def _in_one_line(values: Mapping[str, Any]) -> Any:
    """A mapping as it is to be written."""
    from ruamel.yaml.comments import CommentedMap

    made = CommentedMap({key: _quoted(value) if isinstance(value, str) else value for key, value in values.items()})
    made.fa.set_flow_style()
    return made


def _first(section: Any, key: str, value: Any) -> None:
    """Add a key in front of a section's others, unless it is there."""
    if not isinstance(section, dict) or key in section:
        return
    if hasattr(section, "insert"):  # a mapping that keeps comments, to be written
        section.insert(0, key, [_quoted(one) for one in value] if isinstance(value, list) else value)
    else:
        section[key] = value


def _quoted(text: str) -> Any:
    """Text in quotes: DVC's reader takes no `[a:b]` without them."""
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    return DoubleQuotedScalarString(text)


def profile_text(text: str, own: Project | None) -> str:
    """A profile's text as it becomes params/pipeline.yaml of the project, comments kept; byte for byte where nothing is filled in."""
    if own is None:
        return text
    from ruamel.yaml import YAMLError

    yaml = round_trip()
    try:
        tree = yaml.load(text)
    except YAMLError:  # whoever reads it for its params says so, with the line
        return text
    fill(tree, own)
    return written(yaml, tree)


def round_trip() -> Any:
    """A reader and writer of YAML that keeps comments, quotes, order and long lines as they are."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 1_000_000, True
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def written(yaml: Any, tree: Any) -> str:
    """A tree as text."""
    out = io.StringIO()
    yaml.dump(tree, out)
    return out.getvalue()


def missing_worlds(folder: Path, tree: Mapping[str, Any], source: str, road: Road = ROAD) -> str:
    """Why the active params would not train on the project's own worlds: they name none, as when a profile was copied by hand."""
    own = read(folder)
    lacking = next((named for stage in road.entering(ROOM) if (named := _lacking(tree, stage))), "")
    if own is None or not lacking:
        return ""
    return (
        f"{source}: {lacking} is missing, so Cairn's built-in worlds would be trained on, not {', '.join(own.worlds)} as {FILE} says. "
        f"Write `modules: {list(own.worlds)}` there; `cairn use PROFILE` does it by itself."
    )


def _lacking(tree: Mapping[str, Any], stage: str) -> str:
    """The key at which a stage would name its worlds and does not; empty when it does."""
    worlds = tree.get(stage)
    method = worlds.get("method") if isinstance(worlds, Mapping) else None
    section = worlds.get(method) if isinstance(worlds, Mapping) else None
    if not isinstance(section, Mapping | None) or "modules" in (section or {}):
        return ""
    return f"{stage}.{method}.modules" if method else stage
