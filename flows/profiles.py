"""Profiles and the workspace's params: which is in use, and how another one comes into use."""

from __future__ import annotations

import time

from flows import OUTSIDE, PROJECT, STATE
from tasks.files import write_text
from tasks.params import BadInput, read_yaml
from tasks.settings import PIPELINE, Settings, profile_path, profiles


def all_of_them() -> list[tuple[str, bool]]:
    """(name, whether the workspace's params are it, byte for byte) of each profile. Raises BadInput outside a project."""
    _check_inside()
    active = (PROJECT / PIPELINE).read_bytes()
    return [(name, profile_path(PROJECT, name).read_bytes() == active) for name in profiles(PROJECT)]


def switch(profile: str, force: bool = False) -> list[str]:
    """Make a profile the workspace's params; returns what was done, in lines.

    force: overwrite edits that are in no profile; a copy of them is kept below the state root. Raises BadInput for an unknown profile,
    one that is wrong, and for edits without `force`.
    """
    _check_inside()
    path, active = profile_path(PROJECT, profile), PROJECT / PIPELINE
    Settings(PROJECT, read_yaml(path), f"params/profiles/{profile}.yaml").check()
    text, old, said = path.read_text(encoding="utf-8"), active.read_text(encoding="utf-8"), []
    if all(profile_path(PROJECT, name).read_text(encoding="utf-8") != old for name in profiles(PROJECT)):
        if not force:
            raise BadInput(
                f"{PIPELINE} has edits that are in no profile. Save them as a profile, or repeat with --force (a copy is kept)."
            )
        kept = STATE / "replaced" / f"pipeline-{time.strftime('%Y%m%d-%H%M%S')}.yaml"
        write_text(kept, old)
        said.append(f"the edited params are kept in {kept}")
    if text != old:
        write_text(active, text)
    return [*said, f"{PIPELINE} is now profile {profile}"]


def _check_inside() -> None:
    if OUTSIDE:
        raise BadInput(OUTSIDE)
