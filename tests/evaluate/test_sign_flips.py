"""The exact paired test: by hand, against all assignments of signs, McNemar's as its limit, and its rate of false alarms.

By hand: three problems, all lost: of 8 assignments of signs one is as low, p = 1/8; none is higher than the observed sum's mirror.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from tasks.evaluate.core.sign_flips import one_sided


def test_by_hand() -> None:
    assert one_sided([-4, -2, -1]) == (1 / 8, 1.0)
    assert one_sided([2, 1, 0, 0]) == (1.0, 1 / 4)
    assert one_sided([0] * 9) == (1.0, 1.0)
    assert one_sided([-1] * 9)[0] == 2**-9


@given(st.lists(st.integers(-4, 4), max_size=9))
def test_it_counts_all_assignments_of_signs(gaps: list[int]) -> None:
    sums = [sum(sign * gap for sign, gap in zip(signs, gaps, strict=True)) for signs in product((-1, 1), repeat=len(gaps))]
    below, above = (sum(one <= sum(gaps) for one in sums), sum(one >= sum(gaps) for one in sums))
    assert one_sided(gaps) == (pytest.approx(below / len(sums)), pytest.approx(above / len(sums)))


@given(st.integers(0, 60), st.integers(0, 60))
def test_with_one_trial_it_is_mcnemars(won: int, lost: int) -> None:
    p = binomtest(lost, won + lost, alternative="greater").pvalue if won + lost else 1.0
    assert one_sided([1] * won + [-1] * lost)[0] == pytest.approx(p)


def test_false_alarms_are_as_rare_as_said() -> None:
    """5,000 comparisons of two equal models on 15 problems of any difficulty: at most 0.05 of p_below are below 0.05 (0.0081 is 2.6 standard
    errors of a share of 0.05)."""
    rng = np.random.default_rng(4)
    rate = rng.beta(1, 1, size=(5000, 15))
    gaps = rng.binomial(4, rate) - rng.binomial(4, rate)
    assert np.mean([one_sided(row)[0] <= 0.05 for row in gaps]) < 0.0581
