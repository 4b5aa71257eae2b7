"""Checks in a row: each drops some of what is left, the first failing one names the reason, and the counts add up."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tasks.filter import Check


class Bar(NamedTuple):
    """How many rows were left after a check, and how many it dropped."""

    stage: str
    reason: str
    kept: int
    dropped: int


def flow(count: int, checks: Sequence[Check]) -> tuple[list[str], list[Bar]]:
    """Run the checks over rows 0 .. count - 1: each row's reason ("" when kept), and the bars, first that of all rows."""
    reasons = [""] * count
    left = list(range(count))
    bars = [Bar("all", "", count, 0)]
    for check in checks:
        dropped = check.fails(left)
        for index in dropped:
            reasons[index] = check.reason
        left = [index for index in left if index not in dropped]
        bars.append(Bar(check.stage, check.reason, len(left), len(dropped)))
    return reasons, bars


def write_bars(path: Path, bars: Sequence[Bar]) -> None:
    """The bars as CSV with the header stage,reason,kept,dropped, for plots."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Bar._fields)
        writer.writerows(bars)
