"""Magnitude pruning by hand, at its limits, on files, and on input that must be refused.

Worked example: d = [1, -6, 2, 3, -4] with keep 0.4 keeps -6 and -4 (2 of 5), alpha 0.5:
    none      [0, -3, 0, 0, -2]
    l1        times 16 / 10: [0, -4.8, 0, 0, -3.2]
    inverse   times 5 / 2: [0, -7.5, 0, 0, -5]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contract.params import BadInput, validate
from tasks.merge import Inputs, breadcrumbs
from tasks.merge.core import selection, tensors
from tasks.merge.magnitude_prune import Params, check, formula, run
from tests.merge.folders import family
from tests.merge.formulas import blend, f32, stats
from tests.merge.runs import arithmetic, changes_of, normals, on_1_2_and_4_threads, outcome

SMOKE = {"keep": 0.3, "alpha": 0.5, "rescale": "l1"}

ZEROS = np.zeros((40, 30))
RESCALE = {"none": 1.0, "l1": 1.6, "inverse": 2.5}


@pytest.mark.parametrize("rescale", RESCALE)
def test_worked_example(rescale: Any) -> None:
    params = Params(keep=0.4, alpha=0.5, rescale=rescale)
    merged, masked = blend(formula(params), [0.0] * 5, [[1, -6, 2, 3, -4]])
    np.testing.assert_allclose(merged, np.array([0, -3, 0, 0, -2]) * RESCALE[rescale], rtol=1e-6)
    np.testing.assert_allclose(masked[0], np.array([0, -6, 0, 0, -4]) * RESCALE[rescale], rtol=1e-6)
    (said,) = stats(formula(params), [0.0] * 5, [[1, -6, 2, 3, -4]])
    assert said["rescale"] == pytest.approx(RESCALE[rescale]) and (said["thr_lo"], said["thr_hi"]) == (4, None)


@pytest.mark.parametrize("rescale", RESCALE)
def test_everything_kept_is_task_arithmetic_bit_for_bit(rescale: Any) -> None:
    changes = normals(0, 3)
    merged, _ = blend(formula(Params(keep=1, alpha=0.7, rescale=rescale)), ZEROS, changes, [1, 0.5, -2])
    assert merged.tobytes() == arithmetic(changes, [1, 0.5, -2], 0.7).tobytes()


def test_unscaled_it_is_breadcrumbs_without_a_trimmed_top_bit_for_bit() -> None:
    changes = normals(1, 3)
    merged, _ = blend(formula(Params(keep=0.2, alpha=0.7)), ZEROS, changes, [1, 0.5, -2])
    same, _ = blend(breadcrumbs.formula(breadcrumbs.Params(keep=0.2, trim_top=0, alpha=0.7)), ZEROS, changes, [1, 0.5, -2])
    assert merged.tobytes() == same.tobytes()


@given(values=st.lists(st.integers(-3, 3), min_size=1, max_size=60), keep=st.integers(1, 99))
@settings(max_examples=120, deadline=None)
def test_no_dropped_entry_is_larger_than_a_kept_one(values: list[int], keep: int) -> None:
    merged, _ = blend(formula(Params(keep=keep / 100)), [0.0] * len(values), [values])
    kept, dropped = (np.abs(f32(values))[merged != 0], np.abs(f32(values))[merged == 0])
    assert len(kept) <= selection.share(keep / 100, len(values)) + 0.5
    if len(kept) and len(dropped):
        assert dropped.max() <= kept.min()


@given(values=st.lists(st.integers(-9, 9), min_size=3, max_size=60), keep=st.integers(20, 90))
@settings(max_examples=80, deadline=None)
def test_l1_gives_the_norm_back(values: list[int], keep: int) -> None:
    """Unless nothing is kept, of a tensor with few entries."""
    merged, _ = blend(formula(Params(keep=keep / 100, rescale="l1")), [0.0] * len(values), [values])
    assert np.abs(merged).sum() == pytest.approx(np.abs(values).sum(), rel=1e-5) or not merged.any()
    assert merged.any() == (np.any(values) and round(selection.share(keep / 100, len(values))) > 0)


def test_the_norm_is_taken_over_all_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many blocks, many equal magnitudes at the threshold: the mask of the norm's pass is that of the sum's."""
    change = f32(np.random.default_rng(2).integers(-3, 4, size=(50, 8)))
    params = Params(keep=0.3, rescale="l1")
    whole, _ = blend(formula(params), np.zeros((50, 8)), [change])
    monkeypatch.setattr(tensors, "BLOCK", 24)
    pieces, _ = blend(formula(params), np.zeros((50, 8)), [change])
    assert whole.tobytes() == pieces.tobytes()
    assert np.count_nonzero(whole) == 120 and np.abs(whole).sum() == pytest.approx(np.abs(change).sum(), rel=1e-5)


def test_what_is_kept_whole_is_not_scaled() -> None:
    """A scalar is kept whole, so `inverse` and `l1` leave it as it is."""
    for rescale in RESCALE:
        assert blend(formula(validate(Params, {"keep": 0.2, "rescale": rescale}, "params")), 0.0, [2.0])[0] == 2


@pytest.mark.parametrize("rescale", RESCALE)
@pytest.mark.parametrize("shape", [(40, 30), (1,)])
def test_no_change_stays_no_change(rescale: Any, shape: tuple[int, ...]) -> None:
    """Also of a tensor so small that none of it is kept."""
    base = normals(3, 1, shape)[0]
    merged, _ = blend(formula(Params(rescale=rescale)), base, [np.zeros_like(base)] * 2)
    assert (base + merged).tobytes() == base.tobytes()


def test_overrides_reach_the_formula() -> None:
    params = Params(keep=0.5, overrides=[{"match": "norm", "params": {"keep": 1, "alpha": 2}}])
    np.testing.assert_array_equal(blend(formula(params), [0, 0], [[3, -1]], name="norm")[0], [6, -2])
    np.testing.assert_array_equal(blend(formula(params), [0, 0], [[3, -1]], name="w")[0], [3, 0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"keep": 1}, "keep = 1 removes nothing: this is task arithmetic"),
        ({"keep": 1, "rescale": "inverse"}, "keep = 1 removes nothing"),
        ({"weights": {"a": float("inf")}}, "weights.a = inf"),
        ({"rescale": "l2"}, "rescale = 'l2'"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check(validate(Params, values, "params"))


def test_a_run_with_weights(tmp_path: Path) -> None:
    base, experts = family(tmp_path)
    params = Params(keep=0.3, alpha=0.5, rescale="l1", weights={"expert_1": 3.0})
    found = outcome(run, Inputs(base, experts), params, tmp_path / "run")
    for name, (theta, changes) in changes_of(base, experts).items():
        merged, _ = blend(formula(params), theta, changes, [1, 3], name)
        np.testing.assert_array_equal(found.tensors[name], theta + merged)
    assert all(row["rescale"] > 1 for row in found.rows if row["tensor"] != "scale")
    assert found.figures["experts"]["expert_0"]["kept_frac"] == pytest.approx(0.3, abs=1e-3)


def test_same_bytes_for_any_number_of_threads_and_any_order(tmp_path: Path) -> None:
    one, two, four = on_1_2_and_4_threads(run, Params(keep=0.3, rescale="l1"), tmp_path)
    assert one == two == four
