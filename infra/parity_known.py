"""Where the merge room and mergekit 0.1.5 differ on purpose, each shown on input made for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from infra.oracle import MODEL, OUTSIDE, Case, Family, Outcome, Tensors, average
from tasks.merge.core.headers import Array, narrow, widen
from tasks.merge.core.params import layer_positions

CLOSE = 1e-5
"""As in `infra.parity_merge`: what float32 explains, as a share of a tensor's largest change."""
NORM, HEAD = "model.norm.weight", "lm_head.weight"
WEIGHTS, NEGATIVE = (0.2, 0.4, 0.1), (1.0, -0.5, 0.3)

Shows = Callable[[Outcome, Outcome, Family], bool]
"""shows(ours, theirs, family): whether both do what the label says."""
Change = Callable[[str], Array]
"""A merged model's change by tensor."""


@dataclass(frozen=True)
class Known:
    """A difference, and how it is seen."""

    label: str
    case: Case
    shows: Shows


def both(check: Callable[[Tensors, Tensors, Family], bool]) -> Shows:
    """Both merge, and this holds."""
    return lambda ours, theirs, family: not isinstance(ours, str) and not isinstance(theirs, str) and check(ours, theirs, family)


def refused(why: str, check: Callable[[Tensors, Family], bool]) -> Shows:
    """Ours refuses with these words; theirs merges, and this holds of it."""
    return lambda ours, theirs, family: isinstance(ours, str) and why in ours and not isinstance(theirs, str) and check(theirs, family)


def is_base_plus(merged: Tensors, family: Family, change: Change, names: Sequence[str] = ()) -> bool:
    """Whether a merged model is the base plus this change, in these tensors (none named: in all)."""
    return all(
        np.allclose(merged[name] - family.base[name], change(name), rtol=0, atol=CLOSE * float(np.abs(family.changes[0][name]).max()))
        for name in names or merged
    )


def counts(name: str, ours: int, theirs: int) -> Shows:
    """Either side changes so many entries of a tensor."""

    def check(mine: Tensors, its: Tensors, family: Family) -> bool:
        found = [int(np.count_nonzero(side[name] != family.base[name])) for side in (mine, its)]
        return found == [ours, theirs]

    return both(check)


def _untrimmed(theirs: Tensors, family: Family) -> bool:
    return is_base_plus(theirs, family, lambda name: family.changes[0][name])


def _lowered(theirs: Tensors, family: Family) -> bool:
    """The top quarter is trimmed and nothing else."""

    def change(name: str) -> Array:
        whole = family.changes[0][name]
        return np.where(np.abs(whole) < np.sort(np.abs(whole), axis=None)[whole.size - whole.size // 4], whole, 0)

    return is_base_plus(theirs, family, change)


def _sum(family: Family, weights: Sequence[float]) -> Change:
    return lambda name: np.asarray(sum(weight * change[name] for weight, change in zip(weights, family.changes, strict=True)))


def _rounded_once(ours: Tensors, theirs: Tensors, family: Family) -> bool:
    """Ours is the bfloat16 nearest to the sum, but for one entry in a thousand at most; theirs is not in more than one of a hundred."""
    wrong = np.zeros(2)
    for name, base in family.base.items():
        nearest = widen(narrow(base + _sum(family, WEIGHTS)(name), "BF16"), "BF16")
        wrong += [np.count_nonzero(side[name] != nearest) for side in (ours, theirs)]
    return bool(wrong[0] <= 1e-3 * MODEL.parameters and wrong[1] > 1e-2 * MODEL.parameters)


def _cancelled(ours: Tensors, theirs: Tensors, family: Family) -> bool:
    """Where the two votes cancel, ours leaves the base and theirs takes the positive change; elsewhere both take the mean."""
    first, second = family.changes[:2]

    def change(name: str, where_cancelled: Array | int) -> Array:
        return np.where(first[name] == -second[name], where_cancelled, (first[name] + second[name]) / 2)

    mine = is_base_plus(ours, family, lambda name: change(name, 0))
    return mine and is_base_plus(theirs, family, lambda name: change(name, np.abs(first[name])))


def _mean(family: Family, weights: Sequence[float], size: Callable[[float], float]) -> Change:
    """The disjoint mean of untrimmed changes; the divisor adds up size(weight)."""

    def change(name: str) -> Array:
        pulls = np.stack([weight * expert[name].astype(np.float64) for weight, expert in zip(weights, family.changes, strict=True)])
        agree = np.sign(pulls) == np.sign(pulls.sum(axis=0))
        sizes = np.array([size(weight) for weight in weights]).reshape(-1, *[1] * (pulls.ndim - 1))
        return np.asarray((pulls * agree).sum(axis=0) / (sizes * agree).sum(axis=0))

    return change


def _divisor(ours: Tensors, theirs: Tensors, family: Family) -> bool:
    mine = is_base_plus(ours, family, _mean(family, NEGATIVE, abs))
    return mine and is_base_plus(theirs, family, _mean(family, NEGATIVE, float))


def _outside(ours: Tensors, theirs: Tensors, family: Family) -> bool:
    """In layers both follow the curve; elsewhere ours has its middle and theirs its beginning."""
    positions = layer_positions(list(ours))
    layers = [name for name in ours if not re.search(OUTSIDE, name)]
    free = [name for name in ours if re.search(OUTSIDE, name)]
    alike = all(is_base_plus(side, family, lambda name: positions[name] * family.changes[0][name], layers) for side in (ours, theirs))
    mine = is_base_plus(ours, family, lambda name: 0.5 * family.changes[0][name], free)
    return alike and mine and is_base_plus(theirs, family, lambda name: np.zeros(family.base[name].shape), free)


def _by_index(ours: Tensors, theirs: Tensors, family: Family) -> bool:
    """The same magnitudes stay on both sides; ours are the first entries that have them, theirs others somewhere."""
    other = False
    for name, base in family.base.items():
        change = family.changes[0][name].reshape(-1)
        kept = np.zeros(change.size, dtype=bool)
        kept[np.argsort(-np.abs(change), kind="stable")[: int(0.25 * change.size)]] = True
        mine, its = ((side[name] - base).reshape(-1) != 0 for side in (ours, theirs))
        same = [np.sort(np.abs(change[chosen])) for chosen in (mine, its)]
        if not np.array_equal(mine, kept) or not np.array_equal(same[0], same[1]):
            return False
        other |= not np.array_equal(mine, its)
    return other


def _single(method: str, **params: Any) -> Case:
    return Case(method, params, (1.0,), floored=False)


KNOWN = (
    Known(
        "counts: 0.29 of 64 is rounded to 19, mergekit floors it to 18",
        _single("ties", keep=0.29, alpha=1.0),
        counts(NORM, 19, 18),
    ),
    Known(
        "counts: 0.29 of 6,400 is 1,856, in binary 1,855.9999 and floored to 1,855",
        _single("breadcrumbs", keep=0.29, trim_top=0.05, alpha=1.0),
        counts(HEAD, 1856, 1855),
    ),
    Known(
        "keep 1, trim_top 0.1: refused; mergekit's density 1 trims nothing, whatever gamma says",
        _single("breadcrumbs", keep=1.0, trim_top=0.1, alpha=1.0),
        refused("add up to more than 1", _untrimmed),
    ),
    Known(
        "keep 0.75, trim_top 0.5: refused; mergekit lowers gamma to 0.25",
        _single("breadcrumbs", keep=0.75, trim_top=0.5, alpha=1.0),
        refused("add up to more than 1", _lowered),
    ),
    Known(
        "a param that the method does not have: refused; mergekit ignores it",
        _single("task_arithmetic", alpha=1.0, trim_top=0.1),
        refused("unknown key 'trim_top'", _untrimmed),
    ),
    Known(
        "equal magnitudes at a cut: the first entries stay; mergekit keeps as many, unspecified which",
        Case("breadcrumbs", {"keep": 0.25, "trim_top": 0.0, "alpha": 1.0}, (1.0,), "bfloat16"),
        both(_by_index),
    ),
    Known(
        "bfloat16 without a dtype: rounded once at the end; mergekit rounds every step",
        Case("task_arithmetic", {"alpha": 1.0}, WEIGHTS, "bfloat16", stored=True),
        both(_rounded_once),
    ),
    Known(
        "votes that cancel: no sign is elected, nothing added; mergekit elects +",
        Case("ties", {"keep": 1.0, "alpha": 1.0}, (1.0, 1.0), "votes", floored=False),
        both(_cancelled),
    ),
    Known(
        f"weights {NEGATIVE}: the divisor sums absolute values; mergekit's sums them with their signs",
        Case("ties", {"keep": 1.0, "alpha": 1.0}, NEGATIVE, floored=False),
        both(_divisor),
    ),
    Known(
        "weights that cancel: refused; mergekit divides by 0",
        Case("linear", {"normalize": True}, (1.0, -1.0), configure=average),
        refused("sum to 0", lambda theirs, family: not any(np.isfinite(values).any() for values in theirs.values())),
    ),
    Known(
        "weight curve 0 to 1: tensors of no layer have its middle; mergekit's have its beginning",
        Case("task_arithmetic", {"alpha": 1.0}, ([0.0, 1.0],)),
        both(_outside),
    ),
    Known(
        "NaN in an expert: refused by the tensor's name; mergekit passes it on",
        Case("task_arithmetic", {"alpha": 1.0}, (1.0,), "NaN"),
        refused(NORM, lambda theirs, family: bool(np.isnan(theirs[NORM]).any())),
    ),
)
