"""The files below params/: the active params, what servers said of models, and the complete profiles."""

from __future__ import annotations

from pathlib import Path

from tasks.contract.params import BadInput, brief, nearest

PIPELINE = "params/pipeline.yaml"
"""The active params."""
ROLES_LOCK = "params/roles.lock"
"""What servers said of the models that play roles; see tasks/engine/roles_lock.py."""


def profiles(project: Path) -> tuple[str, ...]:
    """Names of the complete profiles of a project."""
    return tuple(sorted(path.stem for path in (project / "params" / "profiles").glob("*.yaml")))


def profile_path(project: Path, name: str) -> Path:
    """A profile's file, or BadInput with the known names."""
    known = profiles(project)
    if name not in known:
        raise BadInput(f"no profile {brief(name)}.{nearest(str(name), known)} Known: {', '.join(known)}.")
    return project / "params" / "profiles" / f"{name}.yaml"
