"""The mask that magnitude methods share: the ranks between two cuts of one expert's change, of a whole tensor or of each row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tasks.contract.params import BadInput
from tasks.merge.core.headers import Array
from tasks.merge.core.selection import Middle, middle_rows, share
from tasks.merge.core.tensors import Tensor


class MiddleMask:
    """Ranks trimmed+1 .. trimmed+kept of an expert's change, largest first; trimmed and kept count entries of the tensor, or of each
    of its rows. `apply` is called once for each block, in flat order. said: for the report."""

    def __init__(self, tensor: Tensor, expert: int, trimmed: int, kept: int, rows: bool = False) -> None:
        self._trimmed, self._kept = trimmed, kept
        self._width = tensor.row if rows and tensor.numel > tensor.row else 0
        self.figures: dict[str, Any] = {"trimmed_n": trimmed * (tensor.numel // self._width if self._width else 1)}
        if self._width:
            return
        self._middle = Middle(lambda: tensor.magnitudes(expert), lambda: tensor.sample(expert), tensor.numel, trimmed, kept)
        self.figures |= self._middle.bounds

    def apply(self, where: slice, change: Array) -> None:
        """Zero the next block's entries outside the middle, in place; `where` is not looked at, since blocks come in order."""
        magnitudes = np.abs(change)
        if self._width:
            kept = middle_rows(magnitudes.reshape(-1, self._width), self._trimmed, self._kept).reshape(-1)
        else:
            kept = self._middle.keep(magnitudes)
        np.multiply(change, kept, out=change)


def middle_mask(tensor: Tensor, expert: int, keep: float, trim_top: float = 0.0, rows: bool = False) -> MiddleMask:
    """The middle of one expert's change by shares, of the tensor or of each row; a scalar stays whole."""
    width = tensor.row if rows else tensor.numel
    trimmed, kept = middle_counts(width, keep, trim_top) if tensor.shape else (0, 1)
    return MiddleMask(tensor, expert, trimmed, kept, rows)


def check_shares(where: str, keep: float, trim_top: float) -> None:
    """Refuse tails that overlap. where: the override that says so, in front of a param's name."""
    if share(keep, 1) + share(trim_top, 1) > 1:
        raise BadInput(f"{where}keep = {keep} and trim_top = {trim_top} add up to more than 1. Lower one of them.")


def middle_counts(n: int, keep: float, trim_top: float = 0.0) -> tuple[int, int]:
    """(trimmed, kept) of n entries, for the shares trim_top and keep: the top floored, the kept rounded (halves to even), together at
    most n. So a small tensor of which nothing is trimmed still keeps its share."""
    trimmed = math.floor(share(trim_top, n))
    return trimmed, min(round(share(keep, n)), n - trimmed)
