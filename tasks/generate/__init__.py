"""The door to generate: a method makes rows out of worlds, and proves them.

It leaves in `ctx.out`: `blueprints.parquet` (`rows.BLUEPRINT`, every attempt, accepted or refused with its reason) and
`trajectories.parquet` (`rows.TRAJECTORY`, every conversation played, won or lost); a method with an example bank also `bank.json`.
It returns counts by reason, which add up, and "stopped": why it ended before everything was made, or "".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Inputs:
    """worlds: folder of frozen worlds (`tasks.worlds.api.runtime.load_all`). bank: file with pinned examples; without one, or
    with {} in it, the bank grows from what the run accepts."""

    worlds: Path
    bank: Path | None = None
