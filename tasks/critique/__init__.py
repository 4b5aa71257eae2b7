"""Room critique: a method judges trajectories.

It leaves in `ctx.out`: `critiques.parquet` (`schemas.CRITIQUE`, every critic's critique and the aggregate) and
`preferences.parquet` (`schemas.PREFERENCE`, pairs kept or dropped with a reason). It returns counts, and "stopped": why it ended before
everything was reviewed, or "".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

INPUTS = ("worlds", "generate")
"""What a step in this room reads: the result of one step of each room named here; model: one that leaves a checkpoint; models: some."""
READS = ("device", "budget")
"""Shared settings of params/pipeline.yaml that it reads, beside the seed."""
ROLES = ("critic", "meta_critic", "aggregator")
"""Roles whose players it asks."""


@dataclass(frozen=True)
class Inputs:
    """worlds: folder of frozen worlds. generate: folder with trajectories.parquet and blueprints.parquet."""

    worlds: Path
    generate: Path
