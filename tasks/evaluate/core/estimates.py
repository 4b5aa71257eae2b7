"""pass^k and its interval, from the successes of each problem's trials.

pass^k of tau-bench (https://arxiv.org/abs/2406.12045): with n trials of a problem and c successes, C(c, k) / C(n, k) is an
unbiased estimate of "k fresh trials all succeed"; the mean over problems is reported. (pass@k, "at least one", is another.)

Intervals resample problems with their trials kept together (cluster bootstrap): trials of one problem are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEVEL = 0.95
RESAMPLED = "problems"
DIGITS = 6  # of what is written: far below any interval's width, and free of the last bits' noise


def pass_hat_k(wins: npt.ArrayLike, trials: int, k: int) -> Floats:
    """C(c, k) / C(trials, k) for every problem. wins: successes c, int [n], each in 0..trials; result in [0, 1]."""
    counts = np.asarray(wins, dtype=np.int64)
    if not 1 <= k <= trials:
        raise ValueError(f"pass^{k} needs 1 <= k <= {trials} trials")
    if counts.size and not 0 <= counts.min() <= counts.max() <= trials:
        raise ValueError(f"successes must lie in 0..{trials}, got {counts.min()}..{counts.max()}")
    table = np.array([comb(c, k) / comb(trials, k) for c in range(trials + 1)])
    return table[counts]


def resampled(strata: Sequence[Floats], seed: int, resamples: int) -> Floats:
    """Means of `resamples` bootstrap samples, float [resamples]. strata: values per problem, one array per world, each
    [n_g]; problems are drawn with replacement within their own stratum, and all problems weigh the same."""
    rng = np.random.default_rng(seed)
    total = np.zeros(resamples)
    for values in strata:
        drawn = rng.integers(0, len(values), size=(resamples, len(values)))
        total += values[drawn].sum(axis=1)
    return total / sum(len(values) for values in strata)


def estimate(
    strata: Sequence[Floats], trials: int, *, seed: int, resamples: int, limits: tuple[float, float] = (0.0, 1.0)
) -> dict[str, Any]:
    """Mean over problems with its 95 % interval, as it is written to metrics.json.

    strata: values per problem, one array per world. limits: smallest and largest possible value. A sample without any spread
    says nothing to the bootstrap (its interval would have no width, even for one problem); there the interval is the exact
    one (of the smallest world): up to 1 - 0.025^(1/n) of the problems may be of a kind that n draws did not show (for all-0
    or all-1 it is Clopper-Pearson's).
    """
    values = np.concatenate(strata)
    mean, tail = float(values.mean()), (1 - LEVEL) / 2
    if all(np.ptp(part) == 0 for part in strata):
        unseen = 1 - tail ** (1 / min(len(part) for part in strata))
        low, high = mean - unseen * (mean - limits[0]), mean + unseen * (limits[1] - mean)
    else:
        low, high = np.quantile(resampled(strata, seed, resamples), [tail, 1 - tail])
    return {
        "mean": round(mean, DIGITS),
        "low": round(float(low), DIGITS),
        "high": round(float(high), DIGITS),
        "n": len(values),
        "trials": trials,
        "resamples": RESAMPLED,
    }


def difference(first: Sequence[Floats], second: Sequence[Floats], trials: int, *, seed: int, resamples: int) -> dict[str, Any]:
    """`estimate` of first minus second on the same problems (arrays paired by position), limits [-1, 1]."""
    gaps = [a - b for a, b in zip(first, second, strict=True)]
    return estimate(gaps, trials, seed=seed, resamples=resamples, limits=(-1.0, 1.0))
