"""The door to merge: a method makes one checkpoint of several that share a base.

It leaves in `ctx.out`: `model/` (sharded safetensors, config and tokenizer carried over from the base) and `report.parquet`
(one line per tensor and model: what was kept and trimmed, norms, conflicts). It returns figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READS = ("threads", "device")
"""Shared settings of params/pipeline.yaml that it reads, beside the seed."""


@dataclass(frozen=True)
class Inputs:
    """base: checkpoint folder that all experts started from. experts: name -> checkpoint folder, in a fixed order."""

    base: Path
    experts: Mapping[str, Path]


def labels(worlds: Sequence[str]) -> list[str]:
    """The road's experts by name: the specialist of each world."""
    return [f"rl_{world}" for world in sorted(worlds)]


def check_road(params: Any, others: Mapping[str, Any], worlds: Sequence[str]) -> None:
    """Refuse params that name experts which the road will not have, before the experts are trained."""
    from tasks.merge.core.params import check_experts

    check_experts("merge", params, labels(worlds))
