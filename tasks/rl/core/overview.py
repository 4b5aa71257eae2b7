"""One table of the rewards of all specialists, whatever their worlds are called: what `dvc plots show` draws of the stage."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

NAME = "rewards.csv"


def write(folder: Path, worlds: Sequence[str]) -> None:
    """Write `folder`/rewards.csv from <world>/curves.csv: step, the worlds' mean reward, then each world's; an empty cell where a
    world's training took no such step, or no group of it was kept."""
    found: dict[int, dict[str, float]] = {}
    for world in worlds:
        with (folder / world / "curves.csv").open(newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                if line.get("reward"):
                    found.setdefault(int(line["step"]), {})[world] = float(line["reward"])
    with (folder / NAME).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["step", "mean", *worlds])
        for step, rewards in sorted(found.items()):
            mean = sum(rewards.values()) / len(rewards)
            table.writerow([step, f"{mean:.6g}", *(f"{rewards[world]:.6g}" if world in rewards else "" for world in worlds)])
