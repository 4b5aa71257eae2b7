"""mergekit 0.1.5 as an oracle for the merge room: every method that both have, over a grid of parameters.

Three tables. Parity: the largest difference, as a share of a tensor's largest change. Random masks: they cannot be the same entries, so
means over entries are compared, in standard errors. Known differences (`infra.parity_known`): shown on input made for them, both sides
as stated.

Ends with 1 when a parity does not hold, or when a known difference is not what it was.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from infra.bench import ROOT
from infra.oracle import OUTSIDE, Case, Family, Outcome, Tensors, arc, arc_of_changes, average, merge_both
from infra.parity_known import KNOWN, Known
from tasks.merge.core.headers import Array

TOLERANCE = 1e-5
"""Largest difference that float32 explains, as a share of a tensor's largest change: a weight's own rounding is 2^-25 of at most 0.1,
about 1e-6 of it, and a sum in another order adds a few of those. One entry in another mask is at least 1e-2."""
SIGMAS = 4.0
"""How far two sample means may lie apart, in standard errors: by chance once in 16,000 comparisons."""
ONES, UNEVEN, ONE = (1.0, 1.0, 1.0), (0.2, 0.4, 0.1), (1.0,)
ODD = (0.2137, 0.4071, 0.1193)
"""For votes on bfloat16 checkpoints: their changes are small multiples of a step, and of 0.2, 0.4 and 0.1 many sums of them cancel."""
KEEPS = (0.05, 0.29, 0.5, 0.9)
TRIMS = (0.0, 0.01, 0.05)
"""1 % of the norms' 64 entries is none: nothing may be trimmed then, and the kept share must stay. (Versions of mergekit before 0.1.5
are said to have zeroed such a tensor's whole change.)"""


def grid(method: str, settings: Mapping[str, Sequence[Any]], weights: Sequence[tuple[float, ...]], **more: Any) -> list[Case]:
    """A case for every combination."""
    points = [dict(zip(settings, values, strict=True)) for values in product(*settings.values())]
    return [Case(method, point, weights=one, **more) for point in points for one in weights]


def same_cases() -> list[Case]:
    """Where both sides must give the same."""
    return [*_dense(), *_masked(), *_arcs(), *_curves(), *_halves()]


def _dense() -> list[Case]:
    """Methods that mask nothing; and RAM, whose mask is a threshold."""
    found = grid("linear", {"normalize": (True,)}, (ONES, UNEVEN, (1.0, -0.5, 1.0)), configure=average)
    found += grid("linear", {"normalize": (False,)}, ((0.5, 0.3, 0.2), (1.0, 0.5, 0.25)), configure=average)
    found += grid("task_arithmetic", {"alpha": (1.0, 0.4)}, (ONES, UNEVEN, (1.0, -1.0, 0.5), ONE))
    for family in ("float32", "sparse"):
        found.append(Case("ram", {}, family=family, weigh=False))
        found.append(Case("ram", {"plus": True}, family=family, weigh=False, theirs="ramplus_tl"))
    return found


def _masked() -> list[Case]:
    """Methods that keep ranks. mergekit has magnitude pruning as breadcrumbs without a trimmed top."""
    found = []
    for method in ("breadcrumbs", "breadcrumbs_ties"):
        found += grid(method, {"keep": KEEPS, "trim_top": TRIMS, "alpha": (0.4,)}, (ONES, UNEVEN))
    found += grid("breadcrumbs_ties", {"keep": (0.29,), "trim_top": (0.01,), "alpha": (1.0,), "normalize": (True,)}, (UNEVEN,))
    found += grid("ties", {"keep": (*KEEPS, 1.0), "alpha": (1.0, 0.4)}, (ONES, UNEVEN))
    pruned: dict[str, Any] = {"theirs": "breadcrumbs", "more": {"gamma": 0.0}}
    found += grid("magnitude_prune", {"keep": KEEPS, "alpha": (1.0,)}, (ONES, UNEVEN), **pruned)
    found += grid("magnitude_prune", {"keep": (0.29,), "alpha": (1.0,), "rescale": ("l1",)}, (ONES, UNEVEN), **pruned)
    return found


def _arcs() -> list[Case]:
    found = [Case("slerp", {"t": t}, ONE, family, weigh=False, configure=arc) for t in (0.3, 0.5) for family in ("float32", "near")]
    for t in (0.25, 0.5):
        params = {"t": t, "space": "changes", "origin": "expert_0"}
        found.append(Case("slerp", params, (1.0, 1.0), weigh=False, theirs="nuslerp", configure=arc_of_changes))
    return found


def _curves() -> list[Case]:
    """Anchors over the layers, with the tensors of no layer where mergekit puts them: at the first anchor."""
    weights: tuple[Any, ...] = ([0.0, 1.0], [1.0, 0.2, 0.4, 0.0], 0.5)
    first = {"match": OUTSIDE, "weights": {"expert_0": 0.0, "expert_1": 1.0}}
    at_first = {"match": OUTSIDE, "params": {"t": 0.1}}
    return [
        Case("task_arithmetic", {"alpha": 1.0, "overrides": [first]}, weights),
        Case("slerp", {"t": [0.1, 0.9], "overrides": [at_first]}, ONE, weigh=False, configure=arc),
    ]


def _halves() -> list[Case]:
    """bfloat16 checkpoints."""
    halves: dict[str, Any] = {"family": "bfloat16"}
    found = grid("linear", {"normalize": (True,)}, (UNEVEN,), configure=average, **halves)
    found += grid("task_arithmetic", {"alpha": (0.4,)}, (UNEVEN,), **halves)
    found += grid("breadcrumbs", {"keep": (0.05, 0.5), "trim_top": (0.01,), "alpha": (0.4,)}, (ONES, UNEVEN), **halves)
    found += grid("breadcrumbs_ties", {"keep": (0.29,), "trim_top": (0.01,), "alpha": (0.4,)}, (ODD,), **halves)
    found += grid("ties", {"keep": (0.29, 1.0), "alpha": (0.4,)}, (ODD,), **halves)
    found.append(Case("ram", {}, weigh=False, **halves))
    found.append(Case("slerp", {"t": 0.3}, ONE, weigh=False, configure=arc, **halves))
    return found


def random_cases() -> list[Case]:
    """Random masks: the same distribution, other entries. `rescale: inverse`, which mergekit has not, equals its `l1` in the mean."""
    found = grid("dare_linear", {"keep": (0.1, 0.5), "alpha": (1.0,), "rescale": ("l1", "none")}, (ONE, UNEVEN), floored=False)
    found += grid("dare_linear", {"keep": (0.1, 0.5), "alpha": (1.0,), "rescale": ("inverse",)}, (ONE, UNEVEN), floored=False)
    both = {"keep": (0.1, 0.5), "alpha": (0.4,), "rescale": ("l1", "none"), "normalize": (False,)}
    found += grid("dare_ties", both, (ONE, UNEVEN), floored=False)
    mean = {"keep": (0.5,), "alpha": (1.0,), "rescale": ("l1",), "normalize": (True,)}
    return found + grid("dare_ties", mean, (UNEVEN,), floored=False)


@dataclass(frozen=True)
class Verdict:
    """One line of a table."""

    method: str
    setting: str
    apart: str
    holds: bool
    note: str = ""

    def cells(self) -> tuple[str, ...]:
        """Method, setting, how far apart, verdict with its note."""
        return (
            self.method,
            self.setting,
            self.apart,
            "; ".join(["holds" if self.holds else "DOES NOT HOLD"] + [self.note] * bool(self.note)),
        )


def _unmerged(case: Case, ours: Outcome, theirs: Outcome) -> Verdict:
    said = [outcome if isinstance(outcome, str) else "merged" for outcome in (ours, theirs)]
    return Verdict(case.method, case.setting, "-", False, f"ours: {said[0]}; mergekit: {said[1]}")


def judge(case: Case, ours: Outcome, theirs: Outcome, family: Family) -> Verdict:
    """Whether two merges are the same up to float32's rounding, and ours up to one rounding to bfloat16 where checkpoints hold that.

    Left out: entries of equal magnitude at a cut, of which either may stay.
    """
    if isinstance(ours, str) or isinstance(theirs, str):
        return _unmerged(case, ours, theirs)
    if ours.keys() != theirs.keys():
        return Verdict(case.method, case.setting, "-", False, f"only one side has {', '.join(sorted(ours.keys() ^ theirs.keys()))}")
    worst, tied = 0.0, 0
    for name in ours:
        changes = [change[name] for change in family.changes[: len(case.weights)]]
        free = ~at_cuts(changes, case.params.get("keep"), case.params.get("trim_top"))
        gap = np.abs(ours[name] - theirs[name])
        if case.family == "bfloat16":
            gap = np.maximum(gap - half_steps(theirs[name]), 0)
        tied += int(np.count_nonzero(gap[~free]))
        worst = max(worst, float(gap[free].max(initial=0)) / max(float(np.abs(change).max()) for change in changes))
    note = f"{tied} entries tie at a cut and are chosen otherwise" if tied else ""
    return Verdict(case.method, case.setting, f"{worst:.1e}", worst <= TOLERANCE, note)


def half_steps(values: Array) -> Array:
    """Half the way from one bfloat16 to the next at these values: they have 8 significant bits."""
    _, exponents = np.frexp(values)
    return np.ldexp(np.float32(0.5), exponents - 8)


def at_cuts(changes: Sequence[Array], keep: float | None, trim_top: float | None) -> Array:
    """Entries that are as large as those on both sides of a cut, for some expert; none for a method without ranks (keep None)."""
    found = np.zeros(changes[0].shape, dtype=bool)
    if keep is None:
        return found
    n = found.size
    top = int((trim_top or 0) * n)
    for change in changes:
        magnitudes = np.abs(change)
        falling = np.sort(magnitudes, axis=None)[::-1]
        for rank in (top, top + int(keep * n)):
            if 0 < rank < n and falling[rank - 1] == falling[rank]:
                found |= magnitudes == falling[rank]
    return found


def judge_random(case: Case, ours: Outcome, theirs: Outcome, family: Family) -> Verdict:
    """Whether two randomly masked merges can come from one distribution; with one expert, also whether `l1` kept its L1 norm."""
    if isinstance(ours, str) or isinstance(theirs, str):
        return _unmerged(case, ours, theirs)
    weights = [float(weight) for weight in case.weights if not isinstance(weight, list)]
    mine, its = (observe(merged, family, weights) for merged in (ours, theirs))
    apart = max(deviation(mine[key], its[key]) for key in mine)
    notes = ["ours, mergekit: " + ", ".join(f"{key} {mine[key].mean():.4f} {its[key].mean():.4f}" for key in mine)]
    holds = apart <= SIGMAS
    if len(weights) == 1 and case.params["rescale"] == "l1":
        worst = [max(abs(norm / case.params["alpha"] - 1) for norm in l1(side, family)) for side in (ours, theirs)]
        notes.append(f"L1 norms off by {worst[0]:.0e} {worst[1]:.0e}")
        holds = holds and max(worst) <= 10 * TOLERANCE  # the mean of a change, not its largest entry, is in the divisor
    return Verdict(case.method, case.setting, f"{apart:.1f} s.e.", holds, "; ".join(notes))


def observe(merged: Tensors, family: Family, weights: Sequence[float]) -> dict[str, Array]:
    """Per entry: kept (1 or 0); size, of the merged change; along, its product with the unmasked sum. In units of that sum's r.m.s."""

    def flat(part: Tensors) -> Array:
        return np.concatenate([part[name].reshape(-1) for name in sorted(merged)]).astype(np.float64)

    change = flat(merged) - flat(family.base)
    whole: Array = np.add.reduce([weight * flat(expert) for weight, expert in zip(weights, family.changes, strict=False)])
    scale = math.sqrt(float(np.mean(whole**2)))
    return {"kept": (change != 0).astype(np.float64), "size": np.abs(change) / scale, "along": change * whole / scale**2}


def deviation(left: Array, right: Array) -> float:
    """How far two sample means lie apart, in standard errors of their difference."""
    gap = abs(float(left.mean() - right.mean()))
    error = math.sqrt(float(left.var()) / left.size + float(right.var()) / right.size)
    return gap / error if error else (math.inf if gap else 0.0)


def l1(merged: Tensors, family: Family) -> list[float]:
    """Per tensor: the L1 norm of the merged change over that of expert 0's."""
    return [float(np.abs(merged[name] - family.base[name]).sum() / np.abs(family.changes[0][name]).sum()) for name in merged]


def judge_known(known: Known, ours: Outcome, theirs: Outcome, family: Family) -> Verdict:
    """Whether both sides do what is said of them."""
    shown = known.shows(ours, theirs, family)
    wrong = "" if shown else _unmerged(known.case, ours, theirs).note
    return Verdict(known.case.method, known.label, "", shown, wrong)


def show(title: str, verdicts: Sequence[Verdict]) -> None:
    """Print a table."""
    rows = [("method", title, "apart", ""), *(verdict.cells() for verdict in verdicts)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip())
    print(flush=True)


def main() -> int:
    """Merge everything twice, compare, print."""
    same, drawn = same_cases(), random_cases()
    everything = [*same, *drawn, *(known.case for known in KNOWN)]
    home = ROOT / ".cairn" / "tmp"
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home) as folder:
        merged = merge_both(everything, Path(folder))
    tables = {
        "parity": [judge(case, *both) for case, both in zip(same, merged, strict=False)],
        "random masks": [judge_random(case, *both) for case, both in zip(drawn, merged[len(same) :], strict=False)],
        "known differences": [judge_known(known, *both) for known, both in zip(KNOWN, merged[len(same) + len(drawn) :], strict=True)],
    }
    for title, verdicts in tables.items():
        show(title, verdicts)
    wrong = [verdict for verdicts in tables.values() for verdict in verdicts if not verdict.holds]
    print(f"{len(everything) - len(wrong)} of {len(everything)} hold; parity: at most {TOLERANCE:g} of a tensor's largest change")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
