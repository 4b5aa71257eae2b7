"""The whole road on the smoke profile, from nothing, as one process: seconds of `cairn run` in a throwaway copy of this project."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from infra.bench import ROOT, publish

PARTS = ("flows", "tasks", "params", "dvc.yaml", ".dvcignore", ".gitignore", "pyproject.toml", ".dvc")


def _copy(folder: Path) -> None:
    for name in PARTS:
        source = ROOT / name
        leave = shutil.ignore_patterns("__pycache__", "tmp", "cache", "config.local")
        shutil.copytree(source, folder / name, ignore=leave) if source.is_dir() else shutil.copy2(source, folder / name)
    shutil.copy2(folder / "params/profiles/smoke.yaml", folder / "params/pipeline.yaml")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    strange = ("PREFECT", "MLFLOW", "DVC", "CAIRN")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    seconds = []
    for _ in range(asked.rounds):
        with tempfile.TemporaryDirectory() as folder:
            _copy(Path(folder))
            start = time.perf_counter()
            subprocess.run([sys.executable, "-m", "flows.cli", "run"], cwd=folder, env=environment, check=True, capture_output=True)
            seconds.append(time.perf_counter() - start)
    publish("smoke", [("whole road, smoke, s (must 120, aim 60)", statistics.median(seconds))], {"rounds": asked.rounds})
    return 0


if __name__ == "__main__":
    sys.exit(main())
