"""Sign election by hand and by its laws.

Worked example, weights 1 and 2:   c_1 = [3, -1, 2, 0],  2 c_2 = 2 x [-1, -3, -1, 5] = [-2, -6, -2, 10]
    sums 1, -7, 0, 10: elected +, -, none, +; agreeing sums 3, -7, 0, 10; divided by the agreeing weights 1, 3, -, 2: 3, -7/3, 0, 5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merge.core.headers import Array
from tasks.merge.core.sign_election import Elect, Election
from tests.merge.formulas import f32

SMALL = st.lists(st.lists(st.integers(-4, 4), min_size=6, max_size=6), min_size=1, max_size=4)


def merged(changes: Sequence[Sequence[float]], weights: Sequence[float], elect: Elect = "mass", normalize: bool = True) -> Array:
    """The merged change, of copies."""
    return Election(weights, elect, normalize=normalize).merge([f32(change) for change in changes])


def test_worked_example() -> None:
    changes = [f32([3, -1, 2, 0]), f32([-1, -3, -1, 5])]
    election = Election([1, 2], normalize=True)
    np.testing.assert_allclose(election.merge(changes), [3, -7 / 3, 0, 5], rtol=1e-6)
    np.testing.assert_array_equal(changes, [[3, -1, 0, 0], [0, -3, 0, 5]])
    assert election.figures == [{"outvoted_n": 1}, {"outvoted_n": 2}]
    np.testing.assert_array_equal(merged([[3, -1, 2, 0], [-1, -3, -1, 5]], [1, 2], normalize=False), [3, -7, 0, 10])


def test_the_many_against_the_strong() -> None:
    """5 against -1 and -1: by mass + wins (3), by count - does (-1)."""
    assert merged([[5], [-1], [-1]], [1, 1, 1], "mass") == 5
    assert merged([[5], [-1], [-1]], [1, 1, 1], "count") == -1
    assert merged([[5], [-1], [-1]], [9, 0.1, 0.1], "count") == -1, "a vote by count has no weight"


@pytest.mark.parametrize("elect", ["mass", "count"])
@pytest.mark.parametrize("normalize", [True, False])
def test_a_tie_adds_nothing(elect: Elect, normalize: bool) -> None:
    assert merged([[2, 0], [-2, 0]], [1, 1], elect, normalize).tolist() == [0, 0]


def test_zeros_do_not_dilute() -> None:
    assert merged([[4], [0], [0]], [1, 1, 1]) == 4


def test_weight_0_has_no_vote() -> None:
    assert merged([[1], [-9]], [1, 0]).tolist() == [1] == merged([[1], [-9]], [1, 0], "count").tolist()
    assert merged([[1], [-9]], [0, 0]).tolist() == [0]


@given(changes=SMALL, weights=st.lists(st.integers(-3, 3), min_size=4, max_size=4), elect=st.sampled_from(["mass", "count"]))
@settings(max_examples=150, deadline=None)
def test_against_the_definition(changes: list[list[int]], weights: list[int], elect: Elect) -> None:
    weights = weights[: len(changes)]
    wanted = []
    for entries in zip(*changes, strict=True):
        pulls = [weight * entry for weight, entry in zip(weights, entries, strict=True)]
        votes = sum(pulls) if elect == "mass" else sum((pull > 0) - (pull < 0) for pull in pulls)
        winners = [(pull, abs(weight)) for pull, weight in zip(pulls, weights, strict=True) if pull * votes > 0]
        wanted.append(sum(pull for pull, _ in winners) / sum(mass for _, mass in winners) if winners else 0.0)
    np.testing.assert_array_equal(merged(changes, weights, elect), f32(wanted))


@given(changes=SMALL)
@settings(max_examples=60, deadline=None)
def test_a_negative_weight_is_the_opposite_change(changes: list[list[int]]) -> None:
    opposite = [[-entry for entry in changes[0]], *changes[1:]]
    weights = [2.0] * len(changes)
    np.testing.assert_array_equal(merged(changes, [-2.0, *weights[1:]]), merged(opposite, weights))


@given(changes=SMALL, scale=st.sampled_from([0.25, 2.0, 64.0]))
@settings(max_examples=60, deadline=None)
def test_a_mean_does_not_depend_on_the_scale_of_the_weights(changes: list[list[int]], scale: float) -> None:
    weights = [1.0, 3.0, 0.5, 2.0][: len(changes)]
    np.testing.assert_array_equal(merged(changes, weights), merged(changes, [scale * weight for weight in weights]))


def test_counts_add_up_over_blocks() -> None:
    election = Election([1, 1], normalize=True)
    for _ in range(3):
        election.merge([f32([1, 1]), f32([-2, 1])])
    assert election.figures == [{"outvoted_n": 3}, {"outvoted_n": 0}]
