"""DARE with TIES: by hand, at its limits, on files, and on input that must be refused.

Worked example, masks as they fall at a seed: of d1 = [3, -1, 2], d2 = [-1, -3, 2] the kept entries, each divided by keep = 0.5. Where
both stay: sums 4, -8, 8 and means 6, -4, 4 of the agreeing ones. Where one stays: twice that one. Where none stays: 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contract.params import BadInput, validate
from tasks.merge import Inputs, dare_linear, ties
from tasks.merge.dare_ties import Params, check, formula, run
from tests.merge.folders import family
from tests.merge.formulas import blend, f32, stats
from tests.merge.runs import arithmetic, normals, on_1_2_and_4_threads, outcome

SMOKE = {"keep": 0.5, "alpha": 0.5, "rescale": "l1"}

ZEROS = np.zeros((40, 30))
A, B = [3, -1, 2], [-1, -3, 2]
BOTH = {True: [6, -4, 4], False: [6, -8, 8]}
"""What is merged where both stay, by `normalize`."""


@pytest.mark.parametrize("normalize", [True, False])
def test_worked_example(normalize: bool) -> None:
    seen = set()
    for seed in range(40):
        _, (a, b) = blend(dare_linear.formula(dare_linear.Params(keep=0.5, rescale="none"), seed), np.zeros(3), [A, B])
        merged, _ = blend(formula(Params(keep=0.5, normalize=normalize), seed), np.zeros(3), [A, B])
        both = (a != 0) & (b != 0)
        np.testing.assert_array_equal(merged, np.where(both, BOTH[normalize], 2 * (a + b)))
        seen |= {(int(x), int(y)) for x, y in zip(a != 0, b != 0, strict=True)}
    assert seen == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_the_masks_are_those_of_dare_linear_and_one_expert_is_it_bit_for_bit() -> None:
    (change,) = normals(0, 1)
    for normalize in (True, False):
        params = Params(keep=0.3, alpha=0.7, normalize=normalize)
        merged, masked = blend(formula(params, 4), ZEROS, [change])
        same, left = blend(dare_linear.formula(dare_linear.Params(keep=0.3, alpha=0.7), 4), ZEROS, [change])
        np.testing.assert_array_equal(merged, same)
        np.testing.assert_array_equal(masked, left)


def test_changes_of_one_sign_summed_are_dare_linear_bit_for_bit() -> None:
    changes = [np.abs(change) for change in normals(1, 3)]
    merged, _ = blend(formula(Params(keep=0.3, alpha=0.7, normalize=False), 4), ZEROS, changes, [1, 0.5, 2])
    same, _ = blend(dare_linear.formula(dare_linear.Params(keep=0.3, alpha=0.7), 4), ZEROS, changes, [1, 0.5, 2])
    assert merged.tobytes() == same.tobytes()


def test_nothing_dropped_is_untrimmed_ties_bit_for_bit() -> None:
    changes = normals(2, 3)
    merged, _ = blend(formula(Params(keep=1, alpha=0.7)), ZEROS, changes, [1, 0.5, 2])
    same, _ = blend(ties.formula(ties.Params(keep=1, alpha=0.7)), ZEROS, changes, [1, 0.5, 2])
    assert merged.tobytes() == same.tobytes()
    alike = [np.abs(change) for change in changes]
    merged, _ = blend(formula(Params(keep=1, alpha=0.7, normalize=False)), ZEROS, alike, [1, 0.5, 2])
    assert merged.tobytes() == arithmetic(alike, [1, 0.5, 2], 0.7).tobytes()


@given(seed=st.integers(0, 2**62))
@settings(max_examples=30, deadline=None)
def test_no_contribution_opposes_what_is_merged(seed: int) -> None:
    """Each expert's masked change has the sign of the merged one, or is 0 there."""
    merged, masked = blend(formula(Params(keep=0.6, normalize=False), seed), np.zeros(300), normals(3, 3, (300,)))
    for change in masked:
        assert (change * merged >= 0).all()
    assert (merged != 0).any()


@pytest.mark.parametrize("rescale", ["inverse", "l1", "none"])
def test_no_change_stays_no_change(rescale: Any) -> None:
    base = normals(4, 1)[0]
    merged, _ = blend(formula(Params(rescale=rescale)), base, [np.zeros_like(base)] * 2)
    assert (base + merged).tobytes() == base.tobytes()


def test_rescaling_and_the_election_are_reported() -> None:
    changes = normals(5, 2, (2000,))
    a, b = stats(formula(Params(keep=0.5, rescale="l1")), np.zeros(2000), changes)
    assert a["rescale"] == pytest.approx(2, rel=0.1) and a["rescale"] != b["rescale"]
    assert 50 < a["outvoted_n"] < 500


def test_overrides_and_weights_reach_the_formula() -> None:
    params = Params(keep=0.5, overrides=[{"match": "norm", "params": {"keep": 1, "alpha": 2, "normalize": False}}])
    np.testing.assert_array_equal(blend(formula(params), np.zeros(3), [A, B], name="norm")[0], [6, -8, 8])
    np.testing.assert_array_equal(blend(formula(params), np.zeros(3), [A, B], [1, 4], name="norm")[0], [-8, -26, 20])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weights": {"a": float("inf")}}, "weights.a = inf"),
        ({"overrides": [{"match": "norm", "params": {"keep": 0}}]}, r"overrides\[0\] \('norm'\): keep = 0"),
        ({"keep": -1}, "keep = -1: .* Allowed: float > 0 and <= 1"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check(validate(Params, values, "params"))


def test_keeping_everything_is_allowed_since_the_election_acts() -> None:
    check(Params(keep=1))
    assert blend(formula(Params(keep=1)), [0], [[2], [-1]])[0] == 2


def test_a_run_uses_the_masks_of_dare_linear_on_files(tmp_path: Path) -> None:
    base, experts = family(tmp_path)
    found = outcome(run, Inputs(base, experts), Params(keep=0.3), tmp_path / "run", seed=5)
    plain = outcome(dare_linear.run, Inputs(base, experts), dare_linear.Params(keep=0.3), tmp_path / "plain", seed=5)
    other = outcome(run, Inputs(base, experts), Params(keep=0.3), tmp_path / "other", seed=6)
    for mine, its in zip(found.rows, plain.rows, strict=True):
        assert mine["kept_n"] + mine["outvoted_n"] == its["kept_n"]
    assert len({one.digests["model/model.safetensors"] for one in (found, plain, other)}) == 3


def test_same_bytes_for_any_number_of_threads_and_any_order(tmp_path: Path) -> None:
    one, two, four = on_1_2_and_4_threads(run, Params(keep=0.3, rescale="l1"), tmp_path)
    assert one == two == four


def test_zero_weight_leaves_an_expert_out() -> None:
    merged, _ = blend(formula(Params(keep=1)), np.zeros(3), [A, B], [1, 0])
    np.testing.assert_array_equal(merged, f32(A))
