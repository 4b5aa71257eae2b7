"""Sign election: where the experts pull an entry both ways, one sign wins and only those that pull that way are merged.

TIES-Merging, https://arxiv.org/abs/2306.01708: elect sign, then disjoint mean. With c_i = w_i d_i:

    mass     s = sign(sum_i c_i)
    count    s = sign(sum_i sign(c_i))

    sum_i c_i [sign c_i = s],  normalized: divided by sum_i |w_i| [sign c_i = s]

The divisor counts an entry's supporters alone, so that zeros and losers dilute nothing. An exact tie elects 0: nobody agrees with
that and nothing is added. A negative weight votes for, and adds, the opposite of a change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from tasks.merge.core.headers import Array

Elect = Literal["mass", "count"]
"""What is counted: how far the experts pull, or how many of them."""


class Election:
    """One for each tensor. said: per expert, for the report; outvoted_n counts the entries that it lost."""

    def __init__(self, weights: Sequence[float], elect: Elect = "mass", *, normalize: bool) -> None:
        self._weights = [np.float32(weight) for weight in weights]
        self._elect, self._normalize = elect, normalize
        self.figures: list[dict[str, Any]] = [{"outvoted_n": 0} for _ in weights]

    def merge(self, changes: Sequence[Array]) -> Array:
        """The merged change of a block, float32 [k]. changes: per expert, float32 [k]; what was outvoted is zeroed in place."""
        pulls = [weight * change for weight, change in zip(self._weights, changes, strict=True)]
        elected = np.sign(self._votes(pulls))
        total, supporters = np.zeros_like(elected), np.zeros_like(elected)
        for weight, change, pull, figures in zip(self._weights, changes, pulls, self.figures, strict=True):
            agrees = pull * elected > 0
            figures["outvoted_n"] += int(np.count_nonzero(change)) - int(np.count_nonzero(agrees))
            np.multiply(change, agrees, out=change)
            total += np.multiply(pull, agrees, out=pull)
            supporters += np.abs(weight) * agrees
        if self._normalize:
            np.divide(total, supporters, out=total, where=supporters > 0)
        return total

    def _votes(self, pulls: Sequence[Array]) -> Array:
        votes = np.zeros_like(pulls[0])
        for pull in pulls:
            votes += pull if self._elect == "mass" else np.sign(pull)
        return votes
