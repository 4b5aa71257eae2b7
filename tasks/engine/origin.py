"""Where a result came from: the commit of the checkout, and which files differed from it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

OWN = ("dvc.lock", "params/champion.yaml", "params/roles.lock")
"""Files that a run itself writes: they differ from the commit after every run, whatever a person did."""
NAMED = 20
"""Files that are named when the checkout differs from its commit; ours."""


def git(project: Path, *arguments: str) -> str | None:
    """What git says in the project; None when it fails or is not there."""
    try:
        answer = subprocess.run(["git", *arguments], cwd=project, capture_output=True, text=True, errors="replace", check=False)
    except OSError:
        return None
    return answer.stdout if answer.returncode == 0 else None


def origin(project: Path) -> dict[str, Any]:
    """{commit, dirty}: the commit's hash ("" outside git), and up to NAMED files that differ from it or are not in it."""
    commit, status = git(project, "rev-parse", "HEAD"), git(project, "status", "--porcelain", "-z", "--no-renames")
    files = [entry[3:] for entry in (status or "").split("\0") if entry[3:] and entry[3:] not in OWN]
    more = [f"and {len(files) - NAMED} more"] if len(files) > NAMED else []
    return {"commit": (commit or "").strip(), "dirty": files[:NAMED] + more}


def is_older(project: Path, commit: str) -> bool:
    """Whether the checkout's commit is a proper ancestor of another one."""
    head = (git(project, "rev-parse", "HEAD") or "").strip()
    return bool(commit and head and head != commit) and git(project, "merge-base", "--is-ancestor", head, commit) is not None


def origin_tags(found: dict[str, Any]) -> dict[str, str]:
    """An origin as tags of MLflow."""
    commit = {"cairn.commit": found["commit"]} if found["commit"] else {}
    return commit | ({"cairn.dirty": ", ".join(found["dirty"])} if found["dirty"] else {})
