"""Breadcrumbs with sign election: by hand, at its limits, on files, and on input that must be refused.

Worked example, ten entries, keep 0.5, trim_top 0.1, weights 1 (ranks 2 to 6 of each stay):
    d1     .01 -.02  .03 -.04  .05 -.06  .07 -.08  .09  -1     keeps  .05 -.06  .07 -.08  .09   in places 5 to 9
    d2     9    .01  .02  .03  .04 -.05 -.06 -.10  .07  .08    keeps -.06 -.10  .07 .08 -.05    in places 6 to 10
    sums of what is kept, places 5 to 10:  .05  -.11  .01  -.18  .16  .08: + - + - + +
    agreeing: .05, -.06 - .05 = -.11, .07 (the other's -.06 is outvoted), -.18, .16, .08.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contract.params import BadInput, validate
from tasks.merge import Inputs, breadcrumbs, ties
from tasks.merge.breadcrumbs_ties import Params, check, formula, run
from tests.merge.folders import family
from tests.merge.formulas import blend, stats
from tests.merge.runs import arithmetic, changes_of, normals, on_1_2_and_4_threads, outcome

SMOKE = {"keep": 0.3, "trim_top": 0.01, "alpha": 0.5}

A = [0.01, -0.02, 0.03, -0.04, 0.05, -0.06, 0.07, -0.08, 0.09, -1.0]
B = [9.0, 0.01, 0.02, 0.03, 0.04, -0.05, -0.06, -0.10, 0.07, 0.08]
ZEROS = np.zeros((40, 30))


def test_worked_example() -> None:
    params = Params(keep=0.5, trim_top=0.1, alpha=0.5)
    merged, masked = blend(formula(params), [0.0] * 10, [A, B])
    np.testing.assert_allclose(merged, [0, 0, 0, 0, 0.025, -0.055, 0.035, -0.09, 0.08, 0.04], rtol=1e-6)
    np.testing.assert_allclose(masked[1], [0, 0, 0, 0, 0, -0.05, 0, -0.1, 0.07, 0.08], rtol=1e-6)
    a, b = stats(formula(params), [0.0] * 10, [A, B])
    assert (a["outvoted_n"], b["outvoted_n"], a["trimmed_n"], b["trimmed_n"]) == (0, 1, 1, 1)
    assert (a["thr_lo"], a["thr_hi"]) == (pytest.approx(0.05), pytest.approx(1))
    mean, _ = blend(formula(Params(keep=0.5, trim_top=0.1, alpha=1, normalize=True)), [0.0] * 10, [A, B])
    np.testing.assert_allclose(mean, [0, 0, 0, 0, 0.05, -0.055, 0.07, -0.09, 0.08, 0.08], rtol=1e-6)


@pytest.mark.parametrize("granularity", ["tensor", "row"])
def test_one_expert_and_changes_of_one_sign_are_breadcrumbs_bit_for_bit(granularity: Any) -> None:
    params = {"keep": 0.2, "trim_top": 0.04, "alpha": 0.7, "granularity": granularity}
    mine, its = formula(Params(**params)), breadcrumbs.formula(breadcrumbs.Params(**params))
    one = normals(0, 1)
    assert blend(mine, ZEROS, one)[0].tobytes() == blend(its, ZEROS, one)[0].tobytes()
    alike = [np.abs(change) for change in normals(1, 3)]
    assert blend(mine, ZEROS, alike, [1, 0.5, 2])[0].tobytes() == blend(its, ZEROS, alike, [1, 0.5, 2])[0].tobytes()


def test_without_a_trimmed_top_and_normalized_it_is_ties_bit_for_bit() -> None:
    changes = normals(2, 3)
    merged, _ = blend(formula(Params(keep=0.2, trim_top=0, alpha=0.7, normalize=True)), ZEROS, changes, [1, 0.5, 2])
    same, _ = blend(ties.formula(ties.Params(keep=0.2, alpha=0.7)), ZEROS, changes, [1, 0.5, 2])
    assert merged.tobytes() == same.tobytes()


def test_everything_kept_of_one_expert_is_task_arithmetic_bit_for_bit() -> None:
    changes = normals(3, 1)
    merged, _ = blend(formula(Params(keep=1, trim_top=0, alpha=0.7)), ZEROS, changes, [0.5])
    assert merged.tobytes() == arithmetic(changes, [0.5], 0.7).tobytes()


@given(changes=st.lists(st.lists(st.integers(-5, 5), min_size=20, max_size=20), min_size=2, max_size=4))
@settings(max_examples=80, deadline=None)
def test_the_order_of_the_experts_does_not_matter(changes: list[list[int]]) -> None:
    merge = formula(Params(keep=0.5, trim_top=0.1, alpha=1))
    np.testing.assert_array_equal(blend(merge, [0.0] * 20, changes)[0], blend(merge, [0.0] * 20, changes[::-1])[0])


def test_a_small_tensor_of_which_nothing_is_trimmed_keeps_its_share() -> None:
    """64 entries, trim_top 0.01: floor(0.64) = 0 trimmed, round(0.15 x 64) = 10 kept. A [a:-0] slice would keep none."""
    merged, _ = blend(formula(Params(keep=0.15, trim_top=0.01)), np.zeros(64), normals(4, 1, (64,)))
    assert np.count_nonzero(merged) == 10
    assert blend(formula(Params(alpha=1)), 0.0, [2.0])[0] == 2, "a scalar is kept whole"


@pytest.mark.parametrize("granularity", ["tensor", "row"])
def test_no_change_stays_no_change(granularity: Any) -> None:
    base = normals(5, 1)[0]
    merged, _ = blend(formula(Params(granularity=granularity, normalize=True)), base, [np.zeros_like(base)] * 2)
    assert (base + merged).tobytes() == base.tobytes()


def test_overrides_reach_the_formula() -> None:
    exception = {"match": "norm", "params": {"keep": 1, "trim_top": 0, "alpha": 2, "normalize": True}}
    params = Params(keep=0.5, trim_top=0, alpha=1, overrides=[exception])
    given = [[3, -1], [-1, -3]]
    np.testing.assert_array_equal(blend(formula(params), [0, 0], given, name="norm")[0], [6, -4])
    np.testing.assert_array_equal(blend(formula(params), [0, 0], given, name="w")[0], [3, -3])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"keep": 0.95, "trim_top": 0.1}, "keep = 0.95 and trim_top = 0.1 add up to more than 1"),
        ({"weights": {"a": float("inf")}}, "weights.a = inf"),
        ({"trim_top": 1}, "trim_top = 1: .* Allowed: float >= 0 and < 1"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check(validate(Params, values, "params"))


def test_keeping_everything_is_allowed_since_the_election_acts() -> None:
    check(Params(keep=1, trim_top=0))
    assert blend(formula(Params(keep=1, trim_top=0, alpha=1)), [0], [[2], [-1]])[0] == 2


def test_a_run_with_weights(tmp_path: Path) -> None:
    base, experts = family(tmp_path)
    params = Params(keep=0.3, trim_top=0.01, alpha=0.5, weights={"expert_1": 3.0})
    found = outcome(run, Inputs(base, experts), params, tmp_path / "run")
    for name, (theta, changes) in changes_of(base, experts).items():
        merged, _ = blend(formula(params), theta, changes, [1, 3], name)
        np.testing.assert_array_equal(found.tensors[name], theta + merged)
    matrix = next(row for row in found.rows if row["tensor"] == "model.layers.0.mlp.weight")
    assert matrix["trimmed_n"] == 771 and matrix["kept_n"] + matrix["outvoted_n"] == round(0.3 * 77100)


def test_same_bytes_for_any_number_of_threads_and_any_order(tmp_path: Path) -> None:
    one, two, four = on_1_2_and_4_threads(run, Params(keep=0.3), tmp_path)
    assert one == two == four
