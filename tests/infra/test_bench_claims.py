"""The simulated claims of `make bench-claims`, few of them: that what is planted is what is judged."""

from __future__ import annotations

import numpy as np
import pytest

from flows.claims.intervals import POWER, power
from infra.bench_claims import CASES, SEEDS, SMALLEST, WRONG, spread_for, verdicts


@pytest.mark.parametrize(("case", "most"), [("no effect", 0.1), ("the smallest effect", 0.3), ("the smallest effect, reversed", 0.2)])
def test_few_claims_already_err_as_seldom_as_the_rule_says(case: str, most: float) -> None:
    words = verdicts(CASES[case], 40, np.random.default_rng(5))
    assert sum(word in WRONG[case] for word in words) / 40 <= most


def test_the_stated_power_is_of_both_comparisons() -> None:
    for seeds in SEEDS:
        assert 2 * (1 - power(SMALLEST, spread_for(seeds), seeds)) == pytest.approx(1 - POWER)
