"""Which mistake of its catalogue a scripted expert makes in which episode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.contract.params import BadInput, nearest

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

NONE = ""
"""In an array of names of errors: no error."""


def drawn(environment: str, errors: Mapping[str, str], rates: Mapping[str, float], n: int, rng: np.random.Generator) -> Array:
    """(n,) names of errors, NONE where there is none; at most one an action. environment: its name, for messages.

    rates: error -> probability. BadInput for an error that is not in the catalogue, a rate outside [0, 1], and rates above 1 together.
    """
    for name, rate in rates.items():
        if name not in errors:
            raise BadInput(
                f"environment {environment}: its expert makes no error {name!r}.{nearest(name, errors)} Known: {', '.join(errors)}."
            )
        if not 0 <= rate <= 1:
            raise BadInput(f"environment {environment}: the rate of error {name!r} is {rate:g}. Allowed: 0 to 1.")
    if (total := sum(rates.values())) > 1:
        raise BadInput(
            f"environment {environment}: the rates of errors are {total:g} together. Allowed: up to 1, as one action has one."
        )
    place = np.searchsorted(np.cumsum([*rates.values()]), rng.random(n), side="right")
    return np.asarray([*rates, NONE], dtype=object)[place]
