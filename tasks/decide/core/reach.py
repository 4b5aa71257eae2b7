"""How large a fall a comparison on n problems can see, and how many problems it takes to see a fall of a given size.

Reckoned for problems whose trials fail together, which is the least that n problems can tell (with trials that differ they tell more):
then the exact paired test is McNemar's, and its power is a sum over the problems that one of the two models alone wins.
"""

from __future__ import annotations

from functools import lru_cache
from math import comb
from typing import Any

NOISE = 0.02
"""Share of problems that an equal model wins, and as many that it loses, for no reason; ours."""
STEP = 0.01
"""Falls are told in hundredths of pass^1."""


def reach(problems: int, families: int, fall: float, alpha: float, power: float) -> tuple[bool, str, dict[str, Any]]:
    """(whether `problems` in each of so many families show a fall of pass^1 of `fall`, in words what they show, as figures).

    alpha: chance of a false alarm over all families together, each of which is held to alpha / families. power: of being seen.
    """
    level = alpha / families
    smallest, needed = smallest_fall(problems, level, power), problems_for(fall, level, power)
    unseen = "no fall is seen, not even to nothing" if smallest is None else f"a fall below {smallest:.2f} is not seen"
    text = (
        f"With {problems} problems in the smallest of {families} families, {unseen} with probability {power:g};"
        f" a fall of {fall:g} takes {needed} a family, {needed * families} in all."
    )
    return problems >= needed, text, {"smallest_fall": smallest, "needed": needed, "families": families, "power": power}


def smallest_fall(problems: int, alpha: float, power: float) -> float | None:
    """The smallest fall of pass^1 in (0, 1] that n problems show in a share `power` of cases at level alpha; None: not even one to
    nothing."""
    steps = round(1 / STEP)
    return next((step / steps for step in range(1, steps + 1) if seen(problems, step / steps, alpha) >= power), None)


def problems_for(fall: float, alpha: float, power: float) -> int:
    """The smallest number of problems that show a fall of pass^1 of `fall`, in (0, 1], in a share `power` of cases at level alpha."""
    low, high = 0, 1
    while seen(high, fall, alpha) < power:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if seen(middle, fall, alpha) >= power else (middle, high)
    return high


@lru_cache(maxsize=4096)
def seen(problems: int, fall: float, alpha: float) -> float:
    """Chance that the exact one-sided test at level alpha shows a fall of pass^1 of `fall` on so many problems."""
    noise = min(NOISE, (1 - fall) / 2)
    differing = fall + 2 * noise
    worse = (fall + noise) / differing
    return sum(
        _binomial(problems, count, differing) * sum(_binomial(count, lost, worse) for lost in range(_needed(count, alpha), count + 1))
        for count in range(problems + 1)
    )


@lru_cache(maxsize=4096)
def _needed(count: int, alpha: float) -> int:
    """How many of `count` differing problems must be lost for a p of at most alpha; count + 1 when all of them do not do."""
    tail, lost = 0, count
    while lost >= 0 and tail + comb(count, lost) <= alpha * 2**count:
        tail += comb(count, lost)
        lost -= 1
    return lost + 1


def _binomial(count: int, hits: int, chance: float) -> float:
    return comb(count, hits) * chance**hits * (1 - chance) ** (count - hits)
