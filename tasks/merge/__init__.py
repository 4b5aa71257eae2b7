"""The door to merge: a method makes one checkpoint of several that share a base.

It leaves in `ctx.out`: `model/` (sharded safetensors, config and tokenizer carried over from the base) and `report.parquet`
(one line per tensor and model: what was kept and trimmed, norms, conflicts). It returns figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Inputs:
    """base: checkpoint folder that all experts started from. experts: name -> checkpoint folder, in a fixed order."""

    base: Path
    experts: Mapping[str, Path]
