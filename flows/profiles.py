"""Profiles and the workspace's params: which is in use, and how another one comes into use."""

from __future__ import annotations

import time

from flows import OUTSIDE, PROJECT, STATE
from tasks.contract.params import BadInput
from tasks.engine import project as project_file
from tasks.engine.files import write_text
from tasks.engine.param_files import PIPELINE, profile_path, profiles
from tasks.engine.settings import load


def all_of_them() -> list[tuple[str, bool]]:
    """(name, whether the workspace's params are it) of each profile. Raises BadInput outside a project."""
    _check_inside()
    active = (PROJECT / PIPELINE).read_text(encoding="utf-8")
    return [(name, text == active) for name, text in _texts().items()]


def _texts() -> dict[str, str]:
    """Profile -> what it makes of params/pipeline.yaml: its file, with what project.yaml fills in."""
    own = project_file.read(PROJECT)
    return {name: project_file.profile_text(profile_path(PROJECT, name).read_text(encoding="utf-8"), own) for name in profiles(PROJECT)}


def switch(profile: str, force: bool = False) -> list[str]:
    """Make a profile the workspace's params; returns what was done, in lines.

    force: overwrite edits that are in no profile; a copy of them is kept below the state root. Raises BadInput for an unknown profile,
    one that is wrong, and for edits without `force`.
    """
    _check_inside()
    load(PROJECT, profile).check()
    texts, active, lines = _texts(), PROJECT / PIPELINE, []
    text, old = texts[profile], active.read_text(encoding="utf-8")
    if old not in texts.values():
        if not force:
            raise BadInput(
                f"{PIPELINE} has edits that are in no profile. Save them as a profile, or repeat with --force (a copy is kept)."
            )
        kept = STATE / "replaced" / f"pipeline-{time.strftime('%Y%m%d-%H%M%S')}.yaml"
        write_text(kept, old)
        lines.append(f"the edited params are kept in {kept}")
    if text != old:
        write_text(active, text)
    return [*lines, f"{PIPELINE} is now profile {profile}"]


def _check_inside() -> None:
    if OUTSIDE:
        raise BadInput(OUTSIDE)
