"""The whole road on the smoke profile, from nothing, as one process: seconds of `cairn run` in a throwaway copy of this project."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from infra.bench import cairn_run, copy, publish


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    seconds = []
    for _ in range(asked.rounds):
        with tempfile.TemporaryDirectory() as folder:
            copy(Path(folder), "smoke")
            start = time.perf_counter()
            cairn_run(Path(folder)).check_returncode()
            seconds.append(time.perf_counter() - start)
    publish("smoke", [("whole road, smoke, s (must 120, aim 60)", statistics.median(seconds))], {"rounds": asked.rounds})
    return 0


if __name__ == "__main__":
    sys.exit(main())
