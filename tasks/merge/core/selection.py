"""Which entries of a task vector survive: exact selection by magnitude, no sort, no sampling, no interpolated quantile.

The bits of a non-negative float32, read as an unsigned integer, order like the value. So two histograms (of the upper, then
of the lower 16 bits) give the exact k-th largest magnitude in two passes and constant memory. Entries of equal magnitude are
ranked by their flat index, the earlier one first, so that exactly k are taken even when all are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from tasks.merge.core.headers import Array

_BLOCK = 1 << 20  # elements looked at together: 4 MiB of float32
_SMALL = 1 << 16  # below this many elements a partition is cheaper than histograms of 65,536 bins


def share(fraction: float, n: int) -> Fraction:
    """`fraction` of `n` in exact decimals: 0.29 of 100 is 29, not 28.999999999999996."""
    return Fraction(repr(fraction)) * n


def kth_largest(magnitudes: Array, ranks: Sequence[int]) -> list[np.float32]:
    """The magnitudes at 1-based `ranks` from the top. magnitudes: float32 [n], all >= 0, finite; ranks in 1..n."""
    n = magnitudes.size
    if any(not 1 <= rank <= n for rank in ranks):
        raise ValueError(f"ranks {list(ranks)} are not in 1..{n}")
    if n <= _SMALL:
        ordered = np.partition(magnitudes, sorted({n - rank for rank in ranks}))
        return [np.float32(ordered[n - rank]) for rank in ranks]
    bits = magnitudes.view(np.uint32)
    upper = _histogram(bits)
    return [_find(bits, upper, rank) for rank in ranks]


def _histogram(bits: Array) -> Array:
    counts = np.zeros(1 << 16, dtype=np.int64)
    for start in range(0, bits.size, _BLOCK):
        counts += np.bincount(bits[start : start + _BLOCK] >> np.uint32(16), minlength=1 << 16)
    return counts


def _find(bits: Array, upper: Array, rank: int) -> np.float32:
    """The value at one rank: the bin of its upper half, then within that bin the bin of its lower half."""
    high, above = _bin(upper, rank)
    lower = np.zeros(1 << 16, dtype=np.int64)
    for start in range(0, bits.size, _BLOCK):
        block = bits[start : start + _BLOCK]
        inside = block[(block >> np.uint32(16)) == np.uint32(high)]
        lower += np.bincount(inside & np.uint32(0xFFFF), minlength=1 << 16)
    low, _ = _bin(lower, rank - above)
    value: np.float32 = np.array([(high << 16) | low], dtype=np.uint32).view(np.float32)[0]
    return value


def _bin(counts: Array, rank: int) -> tuple[int, int]:
    """The bin that holds the `rank`-th largest entry, and how many entries lie in higher bins."""
    from_top = np.cumsum(counts[::-1])
    position = int(np.searchsorted(from_top, rank))
    index = len(counts) - 1 - position
    return index, int(from_top[position] - counts[index])


def top(magnitudes: Array, k: int, threshold: np.float32) -> Array:
    """Mask of exactly the k largest entries of [n], given the k-th largest value; ties go to the lower flat index."""
    chosen: Array = magnitudes > threshold
    needed = k - int(np.count_nonzero(chosen))
    chosen[np.flatnonzero(magnitudes == threshold)[:needed]] = True
    return chosen


def middle(magnitudes: Array, n_top: int, n_keep: int) -> Array:
    """Mask of [n]: ranks n_top+1 .. n_top+n_keep by magnitude, largest first. Exactly n_keep entries are True."""
    ranks = [rank for rank in (n_top + n_keep, n_top) if rank]
    if not n_keep:
        return np.zeros(magnitudes.size, dtype=bool)
    values = kth_largest(magnitudes, ranks)
    mask = top(magnitudes, ranks[0], values[0])
    if n_top:
        mask &= ~top(magnitudes, n_top, values[1])
    return mask


def middle_rows(magnitudes: Array, n_top: int, n_keep: int) -> Array:
    """`middle` for each row of [r, d] on its own; ties in a row go to the lower column."""
    rows, width = magnitudes.shape
    mask = np.zeros(magnitudes.shape, dtype=bool)
    if not n_keep:
        return mask
    step = max(1, _BLOCK // width)
    for start in range(0, rows, step):
        block = magnitudes[start : start + step]
        chosen = _top_rows(block, n_top + n_keep)
        if n_top:
            chosen &= ~_top_rows(block, n_top)
        mask[start : start + step] = chosen
    return mask


def _top_rows(block: Array, k: int) -> Array:
    width = block.shape[1]
    threshold = np.partition(block, width - k, axis=1)[:, width - k, None]
    chosen: Array = block > threshold
    equal = block == threshold
    needed = k - np.count_nonzero(chosen, axis=1, keepdims=True)
    chosen |= equal & (np.cumsum(equal, axis=1, dtype=np.int32) <= needed)
    return chosen
