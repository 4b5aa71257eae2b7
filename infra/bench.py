"""What all benchmarks share: a readable table, one line of JSON, and the same in reports/bench/<name>.json."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("flows", "tasks", "params", "dvc.yaml", ".dvcignore", ".gitignore", "pyproject.toml", ".dvc")
"""What a project consists of."""


def copy(folder: Path, profile: str) -> None:
    """A project of its own in `folder` on a profile: code and params of this one, nothing cached."""
    for name in PARTS:
        source = ROOT / name
        leave = shutil.ignore_patterns("__pycache__", "tmp", "cache", "config.local")
        shutil.copytree(source, folder / name, ignore=leave) if source.is_dir() else shutil.copy2(source, folder / name)
    shutil.copy2(folder / "params" / "profiles" / f"{profile}.yaml", folder / "params" / "pipeline.yaml")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)


def cairn_run(folder: Path) -> subprocess.CompletedProcess[str]:
    """`cairn run` in a project, away from this one's state; all that it says is in stdout."""
    command = [sys.executable, "-m", "flows.cli", "run"]
    said, errors = subprocess.PIPE, subprocess.STDOUT
    return subprocess.run(command, cwd=folder, env=environment(), check=False, text=True, stdout=said, stderr=errors)


def free_port() -> int:
    """A port of loopback on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment() -> dict[str, str]:
    """Of a command in a project of its own: away from this one's state, modules compiled once."""
    strange = ("PREFECT", "MLFLOW", "DVC", "CAIRN", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"}


def publish(name: str, figures: Sequence[tuple[str, float]], sizes: Mapping[str, Any]) -> None:
    """Print the figures and write them down with sizes and versions."""
    width = max(len(label) for label, _ in figures)
    for label, value in figures:
        print(f"{label:<{width}}  {value:10.4g}")
    record = {
        "bench": name,
        "figures": {label: float(f"{value:.6g}") for label, value in figures},
        "sizes": dict(sizes),
        "python": platform.python_version(),
        "versions": {library: version(library) for library in ("prefect", "dvc", "torch", "transformers")},
    }
    target = ROOT / "reports" / "bench" / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))
