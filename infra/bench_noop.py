"""A second run with nothing changed: `cairn run` and `dvc repro` as whole processes, alternating; medians.

Run it after `make run`. Both must find everything cached; if one of them runs a stage, the benchmark stops and says so.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from infra.bench import ROOT, publish

COMMANDS = {
    "cairn run": ["-m", "flows.cli", "run"],
    "dvc repro": ["-m", "dvc", "repro"],
    "cairn --help": ["-m", "flows.cli", "--help"],
}


def _timed(arguments: list[str]) -> float:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    start = time.perf_counter()
    answer = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    said = answer.stdout + answer.stderr
    if answer.returncode or "Running stage" in said or " runs  " in said:
        raise SystemExit(f"{' '.join(arguments)} did not find everything cached:\n{said}")
    return seconds


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(asked.rounds):
        for name, arguments in COMMANDS.items():
            seconds[name].append(_timed(arguments))
    publish("noop", [(f"{name}, s", statistics.median(times)) for name, times in seconds.items()], {"rounds": asked.rounds})
    return 0


if __name__ == "__main__":
    sys.exit(main())
