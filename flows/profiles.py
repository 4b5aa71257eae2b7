"""Profiles and the workspace's params: which is in use, and how another one comes into use."""

from __future__ import annotations

import itertools
import re
import time
from pathlib import Path
from typing import Any

from flows import OUTSIDE, PROJECT, STATE
from tasks.contract.params import BadInput
from tasks.engine import project as project_file
from tasks.engine.files import write_text
from tasks.engine.param_files import PIPELINE, profile_path, profiles
from tasks.engine.settings import Settings, load


def all_of_them() -> list[tuple[str, bool]]:
    """(name, whether the workspace's params are it) of each profile. Raises BadInput outside a project."""
    _check_inside()
    active = (PROJECT / PIPELINE).read_text(encoding="utf-8")
    return [(name, active in (text, _filled_in(name))) for name, text in _texts().items()]


def about(profile: str) -> str:
    """What a profile is for: the first sentence of the comment that its file begins with."""
    text = profile_path(PROJECT, profile).read_text(encoding="utf-8")
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    return re.split(r"\.(?:\s|$)", " ".join(line.lstrip("# ") for line in lines))[0]


def _texts() -> dict[str, str]:
    """Profile -> what it makes of params/pipeline.yaml: its file, with what project.yaml fills in."""
    own = project_file.read(PROJECT)
    return {name: project_file.profile_text(profile_path(PROJECT, name).read_text(encoding="utf-8"), own) for name in profiles(PROJECT)}


def _filled_in(profile: str) -> str:
    """The profile as it was last filled in for a model; empty when it never was."""
    kept = _filled_file(profile)
    return kept.read_text(encoding="utf-8") if kept.is_file() else ""


def _filled_file(profile: str) -> Path:
    return STATE / "filled" / f"{profile}.yaml"


def switch(profile: str, force: bool = False, model: str = "") -> list[str]:
    """Make a profile the workspace's params; returns what was done, in lines.

    force: overwrite edits that are in no profile; a copy of them is kept below the state root. model: the checkpoint with which the
    road begins, for a profile that leaves that open; what follows from its config is filled in. Raises BadInput for an unknown profile,
    one that is wrong, one that needs a model or has no place for one, and for edits without `force`.
    """
    _check_inside()
    settings = load(PROJECT, profile)
    settings.check(here=False)  # params may be prepared on another machine than the one that runs them
    changes = _changes(settings, model)
    texts, active, lines = _texts(), PROJECT / PIPELINE, [f"{key}: {value}" for key, value in changes]
    text, old = texts[profile], active.read_text(encoding="utf-8")
    if changes:
        from flows.model_fill import written_into

        text = written_into(text, changes)
    if old not in (*texts.values(), *map(_filled_in, texts)):
        if not force:
            raise BadInput(
                f"{PIPELINE} has edits that are in no profile. Save them as a profile, or repeat with --force (a copy is kept)."
            )
        kept = STATE / "replaced" / f"pipeline-{time.strftime('%Y%m%d-%H%M%S')}.yaml"
        write_text(kept, old)
        lines.append(f"the edited params are kept in {kept}")
    if changes:
        write_text(_filled_file(profile), text)
    if text != old:
        write_text(active, text)
    return [*lines, f"{PIPELINE} is now profile {profile}", *_not_here(settings)]


def _not_here(settings: Settings) -> list[str]:
    """A line that says why this machine could not run it, where it could not."""
    try:
        settings.check_machine()
    except BadInput as error:
        return [f"warning: a run is refused on this machine. {error}"]
    return []


def _changes(settings: Settings, model: str) -> list[tuple[str, Any]]:
    from tasks.engine import sources

    open_one = next((source for source in sources.named(settings) if not source.text and source.holds == "checkpoint"), None)
    if not model and open_one:
        raise BadInput(f"{open_one.param} is open: name the checkpoint, `cairn use {settings.shared.profile} --model CHECKPOINT`.")
    if not model:
        return []
    from flows.model_fill import chat_format, check_files, filled
    from tasks.engine.artifact import Store

    changes = filled(settings, model, store := Store(STATE))
    check_files(settings, model, store)
    return [*changes, *chat_format(settings, model, store)]


def _check_inside() -> None:
    if OUTSIDE:
        raise BadInput(OUTSIDE)
