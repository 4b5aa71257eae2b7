"""Room merge: a method makes one checkpoint of several that share a base.

It leaves in `ctx.out`: `model/` (sharded safetensors, config and tokenizer carried over from the base) and `report.parquet`
(one line per tensor and model: what was kept and trimmed, norms, conflicts). It returns figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.contract.params import BadInput
from tasks.contract.planned import Planned

INPUTS = ("models",)
"""What a step in this room reads: the result of one step of each room named here; model: one that leaves a checkpoint; models: some."""
READS = ("threads", "device")
"""Shared settings of params/pipeline.yaml that it reads, beside the seed."""


@dataclass(frozen=True)
class Inputs:
    """base: checkpoint folder that all experts started from. experts: name -> checkpoint folder, in a fixed order."""

    base: Path
    experts: Mapping[str, Path]


def leaves(params: Any, worlds: Sequence[str]) -> list[str]:
    """The checkpoints it leaves: "" is `model/`, a name `<name>/model`. params: of the room's loop if it has one, else the method's."""
    return [""]


def labels(step: Planned) -> list[str]:
    """The experts by name, sorted: the checkpoints of all inputs but the first."""
    return sorted(name for names in step.models()[1:] for name in names)


def check_road(step: Planned) -> None:
    """Refuse a road without experts, and params that name experts which it will not have, before they are trained."""
    from tasks.merge.core.params import check_experts

    if not labels(step):
        raise BadInput(
            f"{step.name}: a merge reads two inputs or more: the first one's checkpoint is the base, the others' the experts."
        )
    check_experts(step.name, step.params, labels(step))
