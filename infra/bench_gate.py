"""How often the gate `paired_gate` errs: simulated candidates of known quality, 5,000 a case, on the sizes that it asks for."""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt

from infra.bench import publish
from tasks.decide.core.reach import problems_for
from tasks.evaluate.core.sign_flips import one_sided

COMPARISONS = 5000
FAMILIES = 14
"""Of retail and airline together."""
TRIALS = 4
ALPHA, FALL, POWER = 0.05, 0.3, 0.9
"""The defaults of paired_gate's params."""
MARGIN = 0.05
"""Of non_inferiority, and of the anchor."""
NIGHTS, RUNS = 30, 100
Counts = npt.NDArray[np.int64]


def main() -> int:
    """Print the shares, and publish them."""
    size = problems_for(FALL, ALPHA / FAMILIES, POWER)
    rng = np.random.default_rng(0)
    rows: list[tuple[str, float]] = [("problems a family", size), ("problems in all", size * FAMILIES)]
    rows += [(f"{gain:+.2f} promoted", promoted(gain, rng)) for gain in (0.0, -0.02, -0.05, 0.02, 0.05, 0.1)]
    cases = [(fall, n) for fall in (FALL, 1.0) for n in (7, 21, size)]
    rows += [(f"family falls by {fall:g}, caught, {n} problems", collapse_caught(fall, n, rng)) for fall, n in cases]
    for name, margin in (("without an anchor", None), ("with an anchor", MARGIN)):
        rows.append((f"pass^1 lost in {NIGHTS} nights, {name}", float(np.mean(drifts(rng, margin)))))
    publish("gate", rows, {"comparisons": COMPARISONS, "families": FAMILIES, "trials": TRIALS})
    return 0


def promoted(gain: float, rng: np.random.Generator, problems: int = 364) -> float:
    """Share of candidates, better than their reference by `gain` of pass^1, that superiority at level ALPHA promotes. Problems are as
    different in difficulty as rates of 0.1 to 0.9 are; both models play each TRIALS times."""
    rate = rng.uniform(0.1, 0.9, size=(COMPARISONS, problems))
    ours = rng.binomial(TRIALS, np.clip(rate + gain, 0, 1))
    return float(np.mean([one_sided(row)[1] <= ALPHA for row in ours - rng.binomial(TRIALS, rate)]))


def drifts(rng: np.random.Generator, anchor_margin: float | None, problems: int = 364) -> npt.NDArray[np.float64]:
    """pass^1 lost by the end of NIGHTS nights under aim non_inferiority, float [RUNS]: each night's candidate is 0.01 to 0.02 worse
    than the champion. anchor_margin: of the gate against the best champion so far, None without it. Intervals are the normal ones."""
    lost = np.zeros(RUNS)
    for run in range(RUNS):
        rate = rng.uniform(0.4, 0.9, size=problems)
        best = now = 0.0  # pass^1 below where it began
        for _ in range(NIGHTS):
            new = now + rng.uniform(0.01, 0.02)
            ours, theirs, anchors = (rng.binomial(TRIALS, np.clip(rate - one, 0, 1)) for one in (new, now, best))
            if _low(ours - theirs) <= -MARGIN or (anchor_margin is not None and _low(ours - anchors) <= -anchor_margin):
                continue
            best, now = new if one_sided(ours - anchors)[1] <= ALPHA else best, new
        lost[run] = now
    return lost


def _low(gaps: Counts) -> float:
    """Lower end of the 95 % interval of a paired difference of pass^1."""
    each = gaps / TRIALS
    return float(each.mean() - 1.96 * each.std(ddof=1) / np.sqrt(len(each)))


def collapse_caught(fall: float, problems: int, rng: np.random.Generator) -> float:
    """Share of cases in which a family is flagged that loses a share `fall` of its problems in all their trials, of a reference that
    solves 98 of 100 trials: the case in which the trials of a problem tell least."""
    theirs = rng.binomial(TRIALS, 0.98, size=(COMPARISONS, problems))
    ours = np.where(rng.random((COMPARISONS, problems)) < fall, 0, rng.binomial(TRIALS, 0.98, size=(COMPARISONS, problems)))
    return float(np.mean([one_sided(row)[0] <= ALPHA / FAMILIES for row in ours - theirs]))


if __name__ == "__main__":
    sys.exit(main())
