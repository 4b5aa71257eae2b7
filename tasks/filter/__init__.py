"""The door to filter: a method marks rows, and never deletes one.

It leaves in `ctx.out`: `dataset.parquet` (`schemas.DATASET`: every trajectory with keep, score, reason and a split by lineage).
It returns counts by reason, which add up to the number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Inputs:
    """worlds: folder of frozen worlds. generate: folder with trajectories.parquet. critique: folder with critiques.parquet."""

    worlds: Path
    generate: Path
    critique: Path
