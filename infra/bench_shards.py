"""Scheduling cost per item: 100,000 items in shards, against a plain loop over the same work.

The work does nothing, so what is measured is what Cairn adds: cutting, keeping and reading back each shard's result.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import flows
from infra.bench import publish


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--shard", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()

    from tasks.engine.shards import sharded

    items = list(range(asked.items))

    def measure() -> tuple[list[float], list[float]]:
        ours, plain = [], []
        for turn in range(asked.rounds):
            with tempfile.TemporaryDirectory(dir=flows.STATE) as folder:
                start = time.perf_counter()
                shards = sharded(Path(folder))(f"turn{turn}", list, items, asked.shard)
                total = sum(len(shard) for shard in shards)
                ours.append((time.perf_counter() - start) / total * 1000)
            start = time.perf_counter()
            total = sum(len(list(items[at : at + asked.shard])) for at in range(0, len(items), asked.shard))
            plain.append((time.perf_counter() - start) / total * 1000)
        return ours, plain

    ours, plain = measure()
    publish(
        "shards",
        [
            ("scheduling cost per item, ms (must 1, aim 0.2)", statistics.median(ours)),
            ("plain loop, ms", statistics.median(plain)),
        ],
        {"items": asked.items, "shard": asked.shard, "rounds": asked.rounds},
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
