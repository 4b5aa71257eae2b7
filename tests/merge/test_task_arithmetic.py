"""Task arithmetic by hand, at its limits, on files, and on input that must be refused.

Worked example: d1 = [1, -2] with weight 1, d2 = [3, 4] with weight -.5 (negation), alpha .5:
    .5 x ([1, -2] + [-1.5, -2]) = [-.25, -2]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contract.params import BadInput
from tasks.merge import Inputs, breadcrumbs
from tasks.merge.core.params import Override
from tasks.merge.task_arithmetic import Params, check, formula, run
from tests.merge.folders import family
from tests.merge.formulas import blend, f32
from tests.merge.runs import arithmetic, changes_of, normals, on_1_2_and_4_threads, outcome

SMOKE = {"alpha": 0.5}


def test_worked_example() -> None:
    changes = [f32([1, -2]), f32([3, 4])]
    merged, left = blend(formula(Params(alpha=0.5)), [7, 7], changes, [1, -0.5])
    np.testing.assert_array_equal(merged, [-0.25, -2])
    np.testing.assert_array_equal(left, changes)


def test_one_expert_at_full_strength_is_that_expert() -> None:
    base, (change,) = f32([4, 5, 6]), [f32([1, -2, 3])]
    merged, _ = blend(formula(Params(alpha=1)), base, [change])
    np.testing.assert_array_equal(base + merged, [5, 3, 9])


def test_it_is_breadcrumbs_that_keep_everything_bit_for_bit() -> None:
    base, changes = normals(0, 1)[0], normals(1, 3)
    merged, _ = blend(formula(Params(alpha=0.7)), base, changes, [1, 0.5, -2])
    kept, _ = blend(breadcrumbs.formula(breadcrumbs.Params(keep=1, trim_top=0, alpha=0.7)), base, changes, [1, 0.5, -2])
    assert merged.tobytes() == kept.tobytes() and merged.any()


def test_no_change_gives_the_base() -> None:
    base = normals(2, 1)[0]
    merged, _ = blend(formula(Params()), base, [np.zeros_like(base)] * 2)
    assert not merged.any()


@given(
    c=st.lists(st.integers(-50, 50), min_size=5, max_size=5),
    b=st.lists(st.integers(-50, 50), min_size=5, max_size=5),
    weights=st.lists(st.integers(-3, 3), min_size=2, max_size=2),
)
@settings(max_examples=60, deadline=None)
def test_an_expert_counted_twice_or_taken_away_again(c: list[int], b: list[int], weights: list[int]) -> None:
    """Integers are exact in float32, so the sum is linear in the weights: w d = d + ... + d, and d - d = 0."""
    first, second = weights
    at_once, _ = blend(formula(Params(alpha=1)), np.zeros(5), [c, b], [first, second])
    apart, _ = blend(formula(Params(alpha=1)), np.zeros(5), [c, b, b, c], [first - 1, second + 1, -1, 1])
    np.testing.assert_array_equal(at_once, apart)
    np.testing.assert_array_equal(at_once, first * np.array(c) + second * np.array(b))


def test_weights_and_overrides_reach_the_formula(tmp_path: Path) -> None:
    base, experts = family(tmp_path)
    overrides = [
        Override(match="mlp", weights={"expert_0": -1.0}, params={"alpha": 0.25}),
        Override(match="embed", exclude=True),
    ]
    made = outcome(run, Inputs(base, experts), Params(alpha=0.5, weights={"expert_1": 2.0}, overrides=overrides), tmp_path / "m")
    for name, (start, changes) in changes_of(base, experts).items():
        own = {"mlp": ([-1, 2], 0.25), "embed": ([0, 0], 1)}
        weights, alpha = next((given for part, given in own.items() if part in name), ([1, 2], 0.5))
        np.testing.assert_array_equal(made.tensors[name], start + arithmetic(changes, weights, alpha))
    assert {row["kept_n"] == row["changed_n"] for row in made.rows} == {True}


def test_same_bytes_for_any_number_of_threads_and_any_order(tmp_path: Path) -> None:
    one, two, four = on_1_2_and_4_threads(run, Params(weights={"expert_2": 0.5}), tmp_path)
    assert one == two == four


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"weights": {"a": float("inf")}}, "weights.a = inf"),
        ({"overrides": [{"match": "w", "params": {"alpha": 0}}]}, "alpha = 0: .*greater than 0"),
        ({"overrides": [{"match": "w", "params": {"weights": {}}}]}, "weights: this cannot differ from tensor to tensor"),
    ],
)
def test_params_without_sense_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check(Params(**params))
