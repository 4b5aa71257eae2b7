"""What makes up for the entries that a mask removes: the number that the rest of a change is multiplied by."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from tasks.merge.core.headers import Array
from tasks.merge.core.tensors import Tensor

Rescale = Literal["inverse", "l1", "none"]
"""inverse: 1 / keep, the share that stays (DARE, https://arxiv.org/abs/2311.03099). l1: the masked tensor gets the L1 norm that it had
before (mergekit). none: 1."""

Mask = Callable[[slice, Array], None]
"""mask(entries, change): zeroes the removed ones of these flat entries in place."""


def rescaling(how: Rescale, keep: float, tensor: Tensor, expert: int, mask: Callable[[], Mask]) -> np.float32:
    """The factor for one expert's change of one tensor; 1 where nothing is left that could be scaled.

    mask(): the expert's mask at the first block, for a pass over the blocks in flat order; asked for by `l1` alone.
    """
    if how == "none":
        return np.float32(1)
    if how == "inverse":
        return np.float32(1 / keep if keep else 1)
    apply, start = mask(), 0
    before, after = [], []
    for change in tensor.changes(expert):
        before.append(_l1(change))
        apply(slice(start, start + len(change)), change)
        after.append(_l1(change))
        start += len(change)
    left = math.fsum(after)
    return np.float32(math.fsum(before) / left) if left else np.float32(1)


def _l1(change: Array) -> float:
    return float(np.add.reduce(np.abs(change), dtype=np.float64))
