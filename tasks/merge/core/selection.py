"""Which entries of a task vector survive: exact ranks by magnitude, block by block; no sort of the whole, no approximation.

A rank's value is found as Floyd and Rivest do (SELECT, Communications of the ACM 18(3), 1975): a few entries, taken at even steps,
give a narrow bracket around it; one pass counts what lies above the bracket and collects what lies in it, and the value is among
those. A bracket that misses costs another pass, never exactness. Entries of equal magnitude are ranked by their flat index, the
earlier one first, so that exactly k are taken even when all are equal.

Cost: one pass over the blocks for all ranks of a task vector; memory for the bracket's entries, about 2 % of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from tasks.merge.core.headers import Array

SMALL = 1 << 17
"""Up to so many entries are collected whole and partitioned: 0.5 MiB of float32."""
SAMPLE = 1 << 16
"""Entries that place the brackets."""
SIGMAS = 4.0
"""Half the width of a bracket, in standard deviations of a rank in the sample; one bracket in 16,000 misses."""


def share(fraction: float, n: int) -> Fraction:
    """`fraction` of `n` in exact decimals: 0.29 of 100 is 29, not 28.999999999999996."""
    return Fraction(repr(fraction)) * n


@dataclass(frozen=True)
class Cut:
    """A rank's place in a task vector: `rank` entries are larger than `value`, or equal to it and among its first `ties`."""

    rank: int
    value: np.float32
    ties: int


def cuts(blocks: Callable[[], Iterable[Array]], sample: Array, n: int, ranks: Sequence[int]) -> list[Cut]:
    """The cuts at 1-based `ranks` from the top of a task vector of n entries.

    blocks: calls back with the float32 magnitudes in flat order, block by block; called once a pass. sample: some of the
    magnitudes, spread evenly. ValueError for ranks outside 1..n.
    """
    if any(not 1 <= rank <= n for rank in ranks):
        raise ValueError(f"ranks {list(ranks)} are not in 1..{n}")
    if n <= SMALL:
        whole = np.concatenate([block.reshape(-1) for block in blocks()])
        return [_cut(whole, rank, rank) for rank in ranks]
    ordered = np.sort(sample)
    brackets = [_bracket(ordered, rank, n) for rank in ranks]
    found: dict[int, Cut] = {}
    while len(found) < len(ranks):
        open_ranks = [index for index in range(len(ranks)) if index not in found]
        above, inside = _count(blocks(), [brackets[index] for index in open_ranks])
        for index, over, within in zip(open_ranks, above, inside, strict=True):
            rank, (low, high) = ranks[index], brackets[index]
            if rank <= over:
                brackets[index] = (high, np.float32(np.inf))
            elif rank > over + len(within):
                brackets[index] = (np.float32(0), low)
            else:
                found[index] = _cut(within, rank - over, rank)
    return [found[index] for index in range(len(ranks))]


def _bracket(ordered: Array, rank: int, n: int) -> tuple[np.float32, np.float32]:
    """Two magnitudes that the rank's value lies between, ends included, almost always."""
    m = len(ordered)
    p = rank / n
    slack = SIGMAS * math.sqrt(m * p * (1 - p)) + 2
    low, high = m - math.ceil(m * p + slack) - 1, m - math.floor(m * p - slack)
    return (
        np.float32(ordered[low]) if low >= 0 else np.float32(0),
        np.float32(ordered[high]) if high < m else np.float32(np.inf),
    )


def _count(blocks: Iterable[Array], brackets: Sequence[tuple[np.float32, np.float32]]) -> tuple[list[int], list[Array]]:
    """Per bracket: how many magnitudes lie above it, and those that lie in it, in flat order."""
    above = [0] * len(brackets)
    inside: list[list[Array]] = [[] for _ in brackets]
    for block in blocks:
        flat = block.reshape(-1)
        for index, (low, high) in enumerate(brackets):
            over = flat > high
            above[index] += int(np.count_nonzero(over))
            within = flat >= low
            within ^= over
            if within.any():
                inside[index].append(flat[within])
    empty = np.empty(0, dtype=np.float32)
    return above, [np.concatenate(some) if some else empty for some in inside]


def _cut(values: Array, place: int, rank: int) -> Cut:
    """The cut at the `place`-th largest of `values`, which is the `rank`-th of the task vector."""
    value = np.partition(values, len(values) - place)[len(values) - place]
    return Cut(rank, np.float32(value), place - int(np.count_nonzero(values > value)))


class Middle:
    """The mask of ranks n_top+1 .. n_top+n_keep of one task vector of n entries, told block by block in flat order.

    blocks: as for `cuts`. sample(): some magnitudes, spread evenly; asked for only where there is much to choose from.
    """

    def __init__(self, blocks: Callable[[], Iterable[Array]], sample: Callable[[], Array], n: int, n_top: int, n_keep: int) -> None:
        ranks = sorted({rank for rank in (n_top, n_top + n_keep) if 0 < rank < n})
        found = cuts(blocks, sample() if n > SMALL else np.empty(0), n, ranks) if ranks else []
        known = {cut.rank: cut for cut in found}
        known |= {0: Cut(0, np.float32(np.inf), 0), n: Cut(n, np.float32(-1), 0)}
        self.top, self.bottom = known[n_top], known[n_top + n_keep]
        self._equal = {"top": 0, "bottom": 0}  # not by rank: with n_keep = 0 both cuts are one

    @property
    def bounds(self) -> dict[str, float | None]:
        """The smallest and the largest magnitude that may stay; None without such a bound."""
        low, high = float(self.bottom.value), float(self.top.value)
        return {"thr_lo": low if self.bottom.rank and low >= 0 else None, "thr_hi": high if self.top.rank and high >= 0 else None}

    def keep(self, magnitudes: Array) -> Array:
        """The next block's mask, True where an entry survives. magnitudes: float32 [k]."""
        kept = self._first(magnitudes, self.bottom, "bottom")
        if self.top.rank:
            kept &= ~self._first(magnitudes, self.top, "top")
        return kept

    def _first(self, magnitudes: Array, cut: Cut, end: str) -> Array:
        """Entries up to the cut's rank: all larger ones, and of the equal ones the first `ties`, counted over the blocks."""
        chosen: Array = magnitudes > cut.value
        seen = self._equal[end]
        if seen < cut.ties:
            equal = np.flatnonzero(magnitudes == cut.value)
            chosen[equal[: cut.ties - seen]] = True
            self._equal[end] = seen + len(equal)
        return chosen


def middle_rows(magnitudes: Array, n_top: int, n_keep: int) -> Array:
    """The mask of ranks n_top+1 .. n_top+n_keep for each row of [r, d] on its own; ties in a row go to the lower column."""
    if not n_keep:
        return np.zeros(magnitudes.shape, dtype=bool)
    chosen = _top_rows(magnitudes, n_top + n_keep)
    if n_top:
        chosen &= ~_top_rows(magnitudes, n_top)
    return chosen


def _top_rows(block: Array, k: int) -> Array:
    width = block.shape[1]
    threshold = np.partition(block, width - k, axis=1)[:, width - k, None]
    chosen: Array = block > threshold
    equal = block == threshold
    needed = k - np.count_nonzero(chosen, axis=1, keepdims=True)
    chosen |= equal & (np.cumsum(equal, axis=1, dtype=np.int32) <= needed)
    return chosen


def step_of(n: int, row: int) -> int:
    """The step at which about SAMPLE of n flat entries are taken; it shares no factor with the row length, so no column is
    preferred."""
    step = max(1, n // SAMPLE)
    while math.gcd(step, row) > 1:
        step += 1
    return step
