"""How sure a difference is that was measured over a few seeds, and how many seeds it takes to find one of a given size.

Intervals are two-sided, of level LEVEL. Over seeds alone: the mean difference plus and minus Student's t times its standard error. Over
seeds and problems: the standard error is that of a bootstrap which draws seeds and then problems in each (Davison & Hinkley, "Bootstrap
Methods and their Application", 1997, section 3.8), and Student's t stands in place of the bootstrap's own percentiles, which over n
seeds are too narrow twice: they have no wider tails than a normal distribution, and miss a factor of sqrt(n / (n - 1)).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, pvariance, stdev

LEVEL = 0.95
POWER = 0.8
"""Share of cases in which a claim's seeds are to find the smallest effect that matters."""
MOST_SEEDS = 1000
"""Where `seeds_for` gives up: nobody runs as many."""


@dataclass(frozen=True)
class Estimate:
    """A mean difference over seeds, its interval, and the standard deviation of one seed's."""

    mean: float
    low: float
    high: float
    spread: float
    seeds: int


def over_seeds(differences: Sequence[float], room: tuple[float, float] = (-math.inf, math.inf), answers: int = 1) -> Estimate:
    """The interval over one difference a seed, two at least. room: the least and the greatest that a difference can be. answers: how
    many problems each is the mean of.

    Where all seeds say the same, t has nothing to go by. Then up to 1 - 0.025^(1/n) of all answers may be other ones, that n answers
    did not show; how far that may move the mean follows from what a difference can be (for yes and no it is Clopper and Pearson's
    interval), and is unbounded where that is.
    """
    n, mean = len(differences), fmean(differences)
    if (spread := stdev(differences)) > 0:
        half = critical(n - 1) * spread / math.sqrt(n)
        return Estimate(mean, mean - half, mean + half, spread, n)
    unseen = 1 - ((1 - LEVEL) / 2) ** (1 / (n * answers))
    return Estimate(mean, mean - unseen * (mean - room[0]), mean + unseen * (room[1] - mean), 0.0, n)


def over_problems(differences: Sequence[Sequence[float]]) -> Estimate:
    """The interval over seeds that each have problems of their own: differences[seed][problem], two seeds at least.

    An interval where all seeds and problems say the same has no width: `over_seeds` is for those.
    """
    n, means = len(differences), [fmean(one) for one in differences]
    error = bootstrap_error(differences) * math.sqrt(n / (n - 1))
    mean, half = fmean(means), critical(n - 1) * error
    return Estimate(mean, mean - half, mean + half, error * math.sqrt(n), n)


def bootstrap_error(differences: Sequence[Sequence[float]]) -> float:
    """Standard deviation of the mean over n seeds when n are drawn with replacement, and then for each its problems: what a bootstrap
    finds with ever more drawings, in closed form, by the law of total variance."""
    n, means = len(differences), [fmean(one) for one in differences]
    of_problems = fmean(pvariance(one) / len(one) for one in differences)
    return math.sqrt((pvariance(means) + of_problems) / n)


@cache
def critical(freedom: int) -> float:
    """The t that Student's distribution with so many degrees of freedom exceeds, on either side, with probability 1 - LEVEL.

    >>> round(critical(7), 3), round(critical(1000), 2)
    (2.365, 1.96)
    """
    low, high = 0.0, 1.0
    while within(high, freedom) < LEVEL:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if within(middle, freedom) >= LEVEL else (middle, high)
    return high


def within(t: float, freedom: int) -> float:
    """Probability that Student's t lies between -t and t: the closed forms for whole degrees of freedom (Abramowitz & Stegun, 26.7.3
    and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for k in range(1, (freedom - odd) // 2 + 1):
        total += term
        term *= square * (2 * k / (2 * k + 1) if odd else (2 * k - 1) / (2 * k))
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def power(size: float, spread: float, seeds: int) -> float:
    """Probability that the interval over so many seeds lies above 0 when the true difference is `size`, normal with `spread` a seed."""
    import numpy as np

    if spread == 0:
        return float(size > 0)
    freedom = seeds - 1
    peak = math.sqrt(max(freedom - 1, 0))
    root = np.linspace(max(peak - 8, 1e-9), peak + 8, 801)  # of the chi-square variable below t
    log_density = (freedom - 1) * np.log(root) - root**2 / 2
    density = np.exp(log_density - log_density.max())
    cut = size * math.sqrt(seeds) / spread - critical(freedom) * root / math.sqrt(freedom)
    above = 0.5 * (1 + np.vectorize(math.erf)(cut / math.sqrt(2)))
    return float(np.trapezoid(above * density, root) / np.trapezoid(density, root))


def seeds_for(size: float, spread: float, probability: float = POWER) -> int | None:
    """The fewest seeds, two at least, that find a true difference of `size` with a probability; None where MOST_SEEDS do not."""
    low, high = 2, MOST_SEEDS
    if power(size, spread, high) < probability:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power(size, spread, middle) >= probability else (middle + 1, high)
    return low
