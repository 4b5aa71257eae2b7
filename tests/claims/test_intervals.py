from __future__ import annotations

import math
from statistics import fmean

import numpy as np
import pytest
from scipy import stats

from flows.claims.intervals import LEVEL, bootstrap_error, critical, over_problems, over_seeds, power, seeds_for, within


@pytest.mark.parametrize("freedom", [1, 2, 4, 7, 9, 11, 19, 100])
def test_students_t_is_that_of_the_tables(freedom: int) -> None:
    assert critical(freedom) == pytest.approx(stats.t.ppf((1 + LEVEL) / 2, freedom), rel=1e-9)
    for t in (0.1, 1.0, 3.3):
        assert within(t, freedom) == pytest.approx(1 - 2 * stats.t.sf(t, freedom), abs=1e-12)


def test_the_paired_interval_is_the_one_of_the_paired_t_test() -> None:
    differences = [0.11, -0.02, 0.07, 0.19, 0.05, 0.03, 0.12, 0.09]
    found = over_seeds(differences)
    expected = stats.ttest_1samp(differences, 0).confidence_interval(LEVEL)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.mean, found.seeds) == (pytest.approx(fmean(differences)), 8)


def test_where_all_seeds_say_the_same_the_interval_is_clopper_and_pearsons() -> None:
    found = over_seeds([1.0] * 20, (0.0, 1.0))
    expected = stats.binomtest(20, 20).proportion_ci(LEVEL)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    found = over_seeds([0.3] * 8)
    assert (found.low, found.high) == (-math.inf, math.inf), "eight equal numbers say nothing of a metric without limits"


@pytest.mark.parametrize(("size", "seeds"), [(0.5, 8), (1.2, 8), (1.0, 5), (0.7, 20), (3.0, 2)])
def test_power_is_that_of_the_noncentral_t(size: float, seeds: int) -> None:
    expected = stats.nct.sf(critical(seeds - 1), seeds - 1, size * math.sqrt(seeds))
    assert power(size, 1.0, seeds) == pytest.approx(expected, abs=2e-4)


def test_seeds_for_finds_the_fewest() -> None:
    for size, spread in ((0.05, 0.04), (0.05, 0.1), (1.0, 0.1)):
        needed = seeds_for(size, spread)
        assert needed and power(size, spread, needed) >= 0.8
        assert needed == 2 or power(size, spread, needed - 1) < 0.8
    assert seeds_for(0.001, 1.0) is None


def test_an_interval_over_problems_is_never_narrower_than_its_seeds_allow() -> None:
    """With a thousand problems a seed, what problems add is nothing, and the interval is Student's, not the bootstrap's percentiles."""
    rng = np.random.default_rng(0)
    differences = [rng.normal(mean, 0.1, 1000).tolist() for mean in rng.normal(0.1, 0.2, 5)]
    found, seeds = over_problems(differences), over_seeds([fmean(one) for one in differences])
    assert found.mean == pytest.approx(seeds.mean)
    assert found.high - found.low == pytest.approx(seeds.high - seeds.low, rel=0.05)


def test_the_closed_form_is_what_a_bootstrap_finds() -> None:
    rng = np.random.default_rng(3)
    differences = [rng.normal(mean, 0.3, size) for mean, size in zip(rng.normal(0, 0.2, 6), (4, 9, 30, 5, 12, 7), strict=True)]
    drawn = [[rng.choice(one, len(one)).mean() for one in map(differences.__getitem__, rng.integers(0, 6, 6))] for _ in range(1500)]
    assert bootstrap_error([one.tolist() for one in differences]) == pytest.approx(np.mean(drawn, axis=1).std(), rel=0.08)


def test_few_problems_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    few = [rng.normal(0.1, 1.0, 4).tolist() for _ in range(8)]
    assert over_problems(few).spread > over_seeds([fmean(one) for one in few]).spread


def test_intervals_over_problems_cover_what_they_say() -> None:
    """200 claims of five seeds with a true difference of 0.1; the bootstrap's own percentiles hold it far less often."""
    rng = np.random.default_rng(1)
    held = percentiles = 0
    for _ in range(200):
        differences = [rng.normal(mean, 0.5, 20) for mean in 0.1 + rng.normal(0, 0.2, 5)]
        found = over_problems([one.tolist() for one in differences])
        held += found.low <= 0.1 <= found.high
        means = np.array([one.mean() for one in differences])
        low, high = np.quantile(means[rng.integers(0, 5, (1000, 5))].mean(axis=1), [0.025, 0.975])
        percentiles += low <= 0.1 <= high
    assert held / 200 >= 0.93 and percentiles / 200 <= 0.88
