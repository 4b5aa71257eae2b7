"""How often the verdict of a claim errs: simulated claims with and without an effect, through the rule that judges real ones.

Each claim has a treatment, a baseline and a mechanism control. Its seeds differ by so much that they find the smallest effect, both
against the baseline and against the control, in POWER of all cases.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping
from functools import cache
from itertools import cycle, islice

import numpy as np

from flows.claims.declaration import Claim, Effect, Interval, Mechanism
from flows.claims.intervals import POWER, power
from flows.claims.results import Cell, Results, figures
from flows.claims.verdict import judge
from infra.bench import publish

SMALLEST = 0.05
PROBLEMS = 50
SEEDS = (5, 8, 10, 12, 20)
INTERVALS: tuple[Interval, ...] = ("paired_t", "hierarchical_bootstrap")
CASES = {
    "no effect": {"treatment": 0.0, "control": 0.0},
    "the smallest effect": {"treatment": SMALLEST, "control": 0.0},
    "the smallest effect, reversed": {"treatment": -SMALLEST, "control": 0.0},
    "the smallest effect, and the control has it too": {"treatment": SMALLEST, "control": SMALLEST},
}
"""What is planted -> how far each arm lies above the baseline."""
WRONG = {
    "no effect": ("reproduced", "reversed"),
    "the smallest effect": ("null", "reversed", "unspecific", "broken"),
    "the smallest effect, reversed": ("reproduced", "null", "unspecific", "broken"),
    "the smallest effect, and the control has it too": ("reproduced", "reversed", "broken"),
}
"""Verdicts that are false. Where the control has the effect too, too few seeds may find none."""


def main(arguments: list[str] | None = None) -> int:
    """Simulate, print the shares, and publish them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--claims", type=int, default=1000, help="simulated claims of each kind")
    count: int = parser.parse_args(arguments).claims
    rows: list[tuple[str, float]] = []
    for index, (case, levels) in enumerate(CASES.items()):
        words = Counter(verdicts(levels, count, np.random.default_rng(index)))
        rows.append((f"{case}: false verdicts, %", 100 * sum(words[word] for word in WRONG[case]) / count))
        rows += [(f"{case}: {word}, %", 100 * words[word] / count) for word in sorted(words)]
    publish("claims", rows, {"claims": count, "seeds": SEEDS, "problems": PROBLEMS, "power": POWER, "intervals": INTERVALS})
    return 0


def verdicts(levels: Mapping[str, float], count: int, rng: np.random.Generator) -> list[str]:
    """The verdicts on `count` claims, in turn of 5 to 20 seeds and by either interval. levels: of each arm, above the baseline's."""
    designs = [(seeds, interval) for seeds in SEEDS for interval in INTERVALS]
    return [verdict(seeds, interval, levels, rng) for seeds, interval in islice(cycle(designs), count)]


def verdict(seeds: int, interval: Interval, levels: Mapping[str, float], rng: np.random.Generator) -> str:
    """The verdict on one claim."""
    effect = Effect("value", "higher", SMALLEST, limits=(None, None))
    controls = (Mechanism("control", lacks="the mechanism"),)
    claim = Claim("simulated", "treatment", "baseline", effect, controls, interval=interval, seeds=seeds)
    spread = spread_for(seeds)
    within = spread / 2  # of problems in a seed: half of what seeds differ by when there are few of them
    between = (spread**2 / 2 - 2 * within**2 / PROBLEMS) ** 0.5
    cells = []
    for seed in range(seeds):
        shared = rng.normal(0.5, 0.1)
        for arm in claim.arms():
            mean = shared + levels.get(arm, 0.0) + rng.normal(0, between)
            values = {"value": (mean + rng.normal(0, within, PROBLEMS)).tolist()}
            cells.append(Cell(arm, seed, 0.0, {}, {}, figures=figures(claim, arm, values)))
    return judge(claim, Results("simulated", claim.rule(), tuple(cells))).word


@cache
def spread_for(seeds: int) -> float:
    """How much a difference may vary from seed to seed so that both comparisons find the smallest effect in POWER of the cases."""
    low, high = 0.0, 100 * SMALLEST
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if power(SMALLEST, middle, seeds) >= 1 - (1 - POWER) / 2 else (low, middle)
    return low


if __name__ == "__main__":
    sys.exit(main())
