"""The exact paired test of two models on the same problems: could the sign of each problem's difference as well be the other?

If neither model is better, a problem's difference of won trials is as likely d as -d, whatever its trials have in common; so all
ways to give the observed differences their signs are equally likely (the randomisation test of Fisher, The Design of Experiments,
1935). With one trial a problem it is McNemar's exact test: a binomial test on the problems that only one of the two won. Problems
without a difference say nothing, and n differences of one sign alone give 2^-n.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import comb

import numpy as np
import numpy.typing as npt


def one_sided(gaps: npt.ArrayLike) -> tuple[float, float]:
    """(p of "not below", p of "not above"): shares of the assignments of signs whose sum is at most, and at least, the observed one.

    gaps: difference of won trials per problem, int [n]. Both are 1 where no problem differs, and above 0 always.
    """
    values = np.asarray(gaps, dtype=np.int64)
    total, sizes = int(values.sum()), np.bincount(np.abs(values))
    below = np.cumsum(_sums(tuple(sizes[1:].tolist())))
    reach = (len(below) - 1) // 2
    # the distribution is symmetric: sums of at least t are as likely as sums of at most -t
    return min(float(below[total + reach]), 1.0), min(float(below[reach - total]), 1.0)


@lru_cache(maxsize=4096)
def _sums(counts: Sequence[int]) -> npt.NDArray[np.float64]:
    """Probability of each sum from -reach to reach, float [2 reach + 1]. counts: how many differences there are of size 1, 2, ..."""
    found = np.ones(1)
    for size, count in enumerate(counts, 1):
        if count:
            spread = np.zeros(2 * size * count + 1)
            spread[:: 2 * size] = _signs(count)
            found = np.convolve(found, spread)
    return found


@lru_cache(maxsize=4096)
def _signs(count: int) -> npt.NDArray[np.float64]:
    """Probability of 0 to `count` plus signs among so many, float [count + 1]."""
    return np.array([comb(count, plus) / 2**count for plus in range(count + 1)])
