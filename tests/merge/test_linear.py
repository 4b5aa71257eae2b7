"""The weighted average by hand, at its limits, on files, and on weights that must be refused.

Worked example: base [1, 2], experts [3, 2] and [1, 6], so the changes are [2, 0] and [0, 4].
    normalized, weights 1 and 3:     (1 x [3, 2] + 3 x [1, 6]) / 4 = [1.5, 5]
    as they are, weights .5 and .25: .5 x [3, 2] + .25 x [1, 6] = [1.75, 2.5]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contract.params import BadInput
from tasks.merge import Inputs
from tasks.merge.core.params import Override
from tasks.merge.linear import Params, check, formula, run
from tests.merge.folders import family
from tests.merge.formulas import blend, f32
from tests.merge.runs import arithmetic, changes_of, normals, on_1_2_and_4_threads, outcome

BASE, CHANGES = f32([1, 2]), [f32([2, 0]), f32([0, 4])]
PLAIN = Params(normalize=False, weights={"a": 1})


def test_worked_example() -> None:
    averaged, left = blend(formula(Params()), BASE, CHANGES, [1, 3])
    np.testing.assert_array_equal(BASE + averaged, [1.5, 5])
    np.testing.assert_array_equal(left, CHANGES)
    summed, _ = blend(formula(PLAIN), BASE, CHANGES, [0.5, 0.25])
    np.testing.assert_array_equal(BASE + summed, [1.75, 2.5])


def test_one_and_a_tenth_of_the_same_model_are_that_model() -> None:
    """The proportions count, not the sizes; without normalizing it is 1.1 times the model, the base included."""
    (change,) = normals(0, 1)
    averaged, _ = blend(formula(Params()), np.ones((40, 30)), [change, change], [0.1, 1])
    np.testing.assert_allclose(averaged, change, rtol=1e-6)
    summed, _ = blend(formula(PLAIN), np.ones((40, 30)), [change, change], [0.1, 1])
    np.testing.assert_allclose(1 + summed, 1.1 * (1 + change), rtol=1e-5, atol=1e-6)


def test_normalized_it_is_task_arithmetic_with_the_shares_bit_for_bit() -> None:
    changes = normals(1, 3)
    averaged, _ = blend(formula(Params()), normals(2, 1)[0], changes, [2, 1, 5])
    assert averaged.tobytes() == arithmetic(changes, [2 / 8, 1 / 8, 5 / 8], 1).tobytes()


def test_weights_that_sum_to_one_need_no_normalizing_bit_for_bit() -> None:
    base, changes = normals(3, 1)[0], normals(4, 2)
    assert (
        blend(formula(PLAIN), base, changes, [0.25, 0.75])[0].tobytes() == blend(formula(Params()), base, changes, [1, 3])[0].tobytes()
    )


def test_no_change_gives_the_base() -> None:
    base = normals(5, 1)[0]
    for params, weights in ((Params(), [0.3, 0.4]), (PLAIN, [0.5, 0.5])):
        averaged, _ = blend(formula(params), base, [np.zeros_like(base)] * 2, weights)
        assert not averaged.any()


@given(
    values=st.lists(st.lists(st.floats(-9, 9, width=32), min_size=4, max_size=4), min_size=1, max_size=4),
    weights=st.lists(st.floats(0.01, 100), min_size=4, max_size=4),
)
@settings(max_examples=80, deadline=None)
def test_an_average_lies_between_and_knows_no_scale(values: list[list[float]], weights: list[float]) -> None:
    changes, given_weights = [f32(one) for one in values], weights[: len(values)]
    averaged, _ = blend(formula(Params()), np.zeros(4), changes, given_weights)
    assert (averaged >= np.min(changes, axis=0) - 1e-4).all() and (averaged <= np.max(changes, axis=0) + 1e-4).all()
    scaled, _ = blend(formula(Params()), np.zeros(4), changes, [7 * weight for weight in given_weights])
    np.testing.assert_allclose(scaled, averaged, atol=1e-4)


def test_weights_and_overrides_reach_the_formula(tmp_path: Path) -> None:
    base, experts = family(tmp_path)
    overrides = [
        Override(match="mlp", weights={"expert_0": 0.25}, params={"normalize": False}),
        Override(match="embed", exclude=True),
    ]
    made = outcome(run, Inputs(base, experts), Params(weights={"expert_0": 3.0}, overrides=overrides), tmp_path / "m")
    for name, (start, changes) in changes_of(base, experts).items():
        if "mlp" in name:
            surplus = np.float32(0.25) * start
            np.testing.assert_array_equal(made.tensors[name], start + (surplus + np.float32(0.25) * changes[0] + changes[1]))
        elif "embed" in name:
            np.testing.assert_array_equal(made.tensors[name], start)
        else:
            np.testing.assert_array_equal(made.tensors[name], start + arithmetic(changes, [0.75, 0.25], 1))
    assert made.figures["experts"]["expert_0"]["masked_l2"] == made.figures["experts"]["expert_0"]["delta_l2"]


def test_same_bytes_for_any_number_of_threads_and_any_order(tmp_path: Path) -> None:
    one, two, four = on_1_2_and_4_threads(run, Params(weights={"expert_1": 2.0}), tmp_path)
    assert one == two == four


@pytest.mark.parametrize("weights", [[1, -1], [0, 0], [0.1 + 0.2, -0.3]])
def test_weights_that_cancel_out_cannot_be_normalized(weights: list[float]) -> None:
    with pytest.raises(BadInput, match=r"linear: the weights for tensor 'x' sum to 0 \(a .*, b .*\)"):
        blend(formula(Params()), BASE, CHANGES, weights, name="x")
    summed, _ = blend(formula(PLAIN), BASE, CHANGES, weights)
    np.testing.assert_allclose(BASE + summed, weights[0] * f32([3, 2]) + weights[1] * f32([1, 6]), atol=1e-6)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"normalize": False}, "normalize = false without weights"),
        ({"weights": {"a": float("nan")}}, "weights.a = nan"),
        ({"overrides": [{"match": "w", "params": {"normalise": False}}]}, "unknown key 'normalise'"),
    ],
)
def test_params_without_sense_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check(Params(**params))
