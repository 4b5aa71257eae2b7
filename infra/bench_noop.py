"""A second run with nothing changed: `cairn run` and `dvc repro` as whole processes, alternating; medians.

Run it after `make run`. Both must find everything cached; if one of them runs a stage, the benchmark stops and says so.
"""

from __future__ import annotations

import argparse
import os
import resource
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


def _timed(arguments: list[str]) -> tuple[float, float]:
    """(seconds on the clock, seconds of CPU) of one command; modules stay compiled between two, as they do for a user."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    start, cpu = time.perf_counter(), _cpu()
    answer = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    said = answer.stdout + answer.stderr
    if answer.returncode or "Running stage" in said or " runs  " in said:
        raise SystemExit(f"{' '.join(arguments)} did not find everything cached:\n{said}")
    return seconds, _cpu() - cpu


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for _ in range(asked.rounds):
        for name, arguments in COMMANDS.items():
            measured[name].append(_timed(arguments))
    rows = [
        (f"{name}, {what}", statistics.median(times[place] for times in rounds))
        for name, rounds in measured.items()
        for place, what in enumerate(("s", "s of CPU"))
    ]
    publish("noop", rows, {"rounds": asked.rounds})
    return 0


if __name__ == "__main__":
    sys.exit(main())
