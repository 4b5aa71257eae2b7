"""What a run is called and what is said of it: its profile, and the params in which it differs from that profile's file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tasks.contract.params import parse_yaml
from tasks.engine import project as project_file
from tasks.engine.dotted import leaves
from tasks.engine.param_files import profile_path, profiles
from tasks.engine.settings import Settings

LONGEST = 100
"""Characters of a name: what a list shows."""


def params_text(tree: Mapping[str, Any]) -> dict[str, str]:
    """Dotted key -> value as text of every param of a tree; a list is one value."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for name, value in leaves(tree, empty=True)
    }


def differences(settings: Settings) -> dict[str, str]:
    """Dotted key -> value of the params that are not the profile's; "not set" for one that is gone. {} without the profile's file."""
    profile = settings.shared.profile
    if profile not in profiles(settings.project):
        return {}
    own = project_file.read(settings.project)
    text = project_file.profile_text(profile_path(settings.project, profile).read_text("utf-8"), own)
    there, here = params_text(parse_yaml(text, profile)), params_text(settings.tree)
    return {name: here.get(name, "not set") for name in dict.fromkeys([*here, *there]) if here.get(name) != there.get(name)}


def run_name(settings: Settings) -> str:
    """The profile and what differs from it, as much of it as LONGEST holds: `quickstart: seed=1, sft.loop.epochs=2`."""
    different = [f"{name}={value}" for name, value in differences(settings).items()]
    name = ": ".join(filter(None, (settings.shared.profile, ", ".join(different))))
    kept = len(different)
    while len(name) > LONGEST and kept > 1:
        kept -= 1
        name = f"{settings.shared.profile}: {', '.join(different[:kept])} and {len(different) - kept} more"
    return name[:LONGEST]


def description(settings: Settings, commit: str, dirty: list[str]) -> str:
    """What a run is, in Markdown."""
    lines = [f"Cairn's road with the profile **{settings.shared.profile}**, seed {settings.shared.seed}.", ""]
    steps = [f"{name} (`{settings.method(name)}`)" for name in settings.road.names]
    lines += [f"Steps: {', '.join(steps)}.", ""]
    if different := differences(settings):
        lines += ["It differs from the profile in:", "", *(f"- `{name}`: {value}" for name, value in different.items()), ""]
    if commit:
        changed = f", with changes in {', '.join(dirty)}" if dirty else ""
        lines.append(f"Code: commit `{commit}`{changed}.")
    return "\n".join(lines)
