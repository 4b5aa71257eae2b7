"""How masking methods put together what their masks leave of the changes: a weighted sum, or the part that agrees on a sign."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from tasks.merge.core.engine import Look
from tasks.merge.core.headers import Array
from tasks.merge.core.sign_election import Election
from tasks.merge.core.tensors import Block, Tensor


class Mask(Protocol):
    """Of one expert's change of one tensor. figures: for the report, complete after the last block."""

    figures: dict[str, Any]

    def apply(self, where: slice, change: Array) -> None:
        """Zero what is masked of these flat entries, in place; what is left may be rescaled."""


def weighted_sum(tensor: Tensor, masks: Sequence[Mask], alpha: float) -> Look:
    """alpha times the sum of the masked changes, each times its expert's weight."""

    def blend(block: Block) -> Array:
        total = np.zeros_like(block.base)
        for change, mask, weight in zip(block.changes, masks, tensor.weights, strict=True):
            mask.apply(block.indices, change)
            total += np.float32(weight) * change
        total *= np.float32(alpha)
        return total

    return Look(blend, [mask.figures for mask in masks])


def agreeing_part(masks: Sequence[Mask], election: Election, alpha: float) -> Look:
    """alpha times what the election leaves of the masked changes."""

    def blend(block: Block) -> Array:
        for change, mask in zip(block.changes, masks, strict=True):
            mask.apply(block.indices, change)
        merged = election.merge(block.changes)
        merged *= np.float32(alpha)
        return merged

    for figures, mask in zip(election.figures, masks, strict=True):
        figures.update(mask.figures)
    return Look(blend, election.figures)
