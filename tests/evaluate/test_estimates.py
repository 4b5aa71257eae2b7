"""pass^k and intervals by hand, as properties, and by simulation.

Worked example: 4 trials of three problems with 4, 3 and 0 successes.
    pass^1 = (4/4 + 3/4 + 0/4) / 3 = 0.5833;  pass^2 = (1 + C(3,2)/C(4,2) + 0) / 3 = (1 + 3/6) / 3 = 0.5;  pass^4 = 1/3.
"""

from __future__ import annotations

from itertools import combinations, pairwise
from math import isclose

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.evaluate.core.estimates import difference, estimate, pass_hat_k


def test_worked_example() -> None:
    means = [float(pass_hat_k([4, 3, 0], 4, k).mean()) for k in (1, 2, 4)]
    assert means == pytest.approx([7 / 12, 0.5, 1 / 3])


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.data())
def test_it_is_the_share_of_subsets_that_all_succeed(trials: list[bool], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(trials)))
    subsets = list(combinations(trials, k))
    (value,) = pass_hat_k([sum(trials)], len(trials), k)
    assert isclose(value, sum(all(subset) for subset in subsets) / len(subsets))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=20))
def test_it_falls_with_k_and_is_the_mean_reward_at_one(wins: list[int]) -> None:
    means = [float(pass_hat_k(wins, 6, k).mean()) for k in range(1, 7)]
    assert means[0] == pytest.approx(sum(wins) / 6 / len(wins))
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(means))
    assert means[-1] == pytest.approx(sum(win == 6 for win in wins) / len(wins))


def test_it_is_unbiased() -> None:
    """One problem with success rate 0.7, k = 3 of 5 trials: the mean over many evaluations is 0.7^3 = 0.343."""
    wins = np.random.default_rng(0).binomial(5, 0.7, size=40_000)
    assert float(pass_hat_k(wins, 5, 3).mean()) == pytest.approx(0.343, abs=4 * 0.35 / 200)


@pytest.mark.parametrize(("wins", "trials", "k", "message"), [([1], 4, 5, r"pass\^5 needs"), ([5], 4, 1, r"0\.\.4, got 5")])
def test_impossible_counts_are_refused(wins: list[int], trials: int, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pass_hat_k(wins, trials, k)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(1).random(50)
    first, again, other = (estimate([values], 4, seed=seed, resamples=500) for seed in (3, 3, 4))
    assert first == again != other
    assert (first["n"], first["trials"], first["resamples"]) == (50, 4, "problems")
    assert first["low"] < first["mean"] < first["high"]


def test_intervals_cover_what_they_say() -> None:
    """Problems differ in difficulty (Beta(2, 2)) and each is tried 4 times: 95 % intervals for the mean 0.5 cover it in about
    95 of 100 evaluations. Resampling trials instead of problems would cover in far fewer, which the second figure shows."""
    rng = np.random.default_rng(0)
    runs, covered, naive = 400, 0, 0
    for run in range(runs):
        values = rng.binomial(4, rng.beta(2, 2, size=80)) / 4
        said = estimate([values], 4, seed=run, resamples=400)
        covered += said["low"] <= 0.5 <= said["high"]
        half = 1.96 * np.sqrt(values.mean() * (1 - values.mean()) / (4 * 80))
        naive += abs(values.mean() - 0.5) <= half
    assert 0.91 <= covered / runs <= 0.98
    assert naive / runs < 0.90


def test_no_spread_still_leaves_doubt() -> None:
    """Three of three problems solved: Clopper-Pearson says at least 0.025^(1/3) = 0.292, the bootstrap would say exactly 1."""
    said = estimate([np.ones(3)], 4, seed=0, resamples=100)
    assert (said["mean"], said["high"]) == (1.0, 1.0) and said["low"] == pytest.approx(0.025 ** (1 / 3), abs=1e-6)
    none = estimate([np.zeros(1000)], 4, seed=0, resamples=100)
    assert none["low"] == 0.0 and none["high"] == pytest.approx(1 - 0.025 ** (1 / 1000), abs=1e-6)


def test_strata_keep_their_share() -> None:
    """Worlds of 90 and 10 problems: a sample always has 90 and 10 of them, so a difference between worlds adds no width."""
    rng = np.random.default_rng(3)
    easy, hard = 0.9 + 0.02 * rng.random(90), 0.1 + 0.02 * rng.random(10)
    said = estimate([easy, hard], 4, seed=0, resamples=500)
    mixed = estimate([np.concatenate([easy, hard])], 4, seed=0, resamples=500)
    assert said["mean"] == mixed["mean"] and said["high"] - said["low"] < (mixed["high"] - mixed["low"]) / 10


def test_no_spread_within_the_worlds_leaves_doubt_too() -> None:
    """One world all solved, the other not at all: no sample differs, and the smaller world says how little that proves."""
    said = estimate([np.ones(30), np.zeros(50)], 4, seed=0, resamples=100)
    unseen = 1 - 0.025 ** (1 / 30)
    assert said["low"] == pytest.approx(0.375 * (1 - unseen), abs=1e-6)
    assert said["high"] == pytest.approx(0.375 + unseen * 0.625, abs=1e-6)


def test_paired_differences_are_sharper_than_their_parts() -> None:
    """The same problems, one model a little better on each: the problems' difficulty cancels."""
    rng = np.random.default_rng(2)
    easy = rng.choice([0.0, 1.0], size=60)
    ours = np.clip(easy + rng.choice([0.0, 0.25], size=60), 0, 1)
    gap = difference([ours], [easy], 4, seed=0, resamples=1000)
    alone = estimate([ours], 4, seed=0, resamples=1000)
    assert gap["low"] > 0 and gap["high"] - gap["low"] < (alone["high"] - alone["low"]) / 3
