"""DARE by hand, at its limits, in expectation, on files, and on input that must be refused.

Worked example: d = [1, 2, 4, 8] of which a mask keeps the entries M, keep 0.25, alpha 0.5:
    inverse   each kept entry times 4, times 0.5: twice the entry.
    l1        the kept ones times 15 / (sum of the kept), so that they add up to 15 again; times 0.5.
    none      half the kept entries.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contract.params import BadInput, validate
from tasks.merge import Inputs
from tasks.merge.core import tensors
from tasks.merge.dare_linear import Params, check, formula, run
from tests.merge.folders import family
from tests.merge.formulas import blend, blended, f32, stats, tensor
from tests.merge.runs import arithmetic, changes_of, normals, on_1_2_and_4_threads, outcome

SMOKE = {"keep": 0.5, "alpha": 0.5}

CHANGE = f32([1, 2, 4, 8])


def kept(seed: int, keep: float = 0.25) -> Any:
    """The entries of CHANGE that stay, as bool."""
    return blend(formula(Params(keep=keep, rescale="none"), seed), np.zeros(4), [CHANGE])[0] > 0


SEED = next(seed for seed in range(100) if 1 <= kept(seed).sum() <= 3)
"""One at which some entries stay and some go."""


def test_worked_example() -> None:
    mask = kept(SEED)
    for rescale, wanted in (
        ("inverse", 2 * CHANGE * mask),
        ("l1", 0.5 * CHANGE * mask * 15 / CHANGE[mask].sum()),
        ("none", 0.5 * CHANGE * mask),
    ):
        params = validate(Params, {"keep": 0.25, "alpha": 0.5, "rescale": rescale}, "params")
        merged, masked = blend(formula(params, SEED), np.zeros(4), [CHANGE])
        np.testing.assert_allclose(merged, wanted, rtol=1e-6)
        np.testing.assert_allclose(masked[0], 2 * wanted, rtol=1e-6)
        (said,) = stats(formula(params, SEED), np.zeros(4), [CHANGE])
        assert said["rescale"] == pytest.approx({"inverse": 4, "l1": 15 / CHANGE[mask].sum(), "none": 1}[rescale])


@pytest.mark.parametrize("rescale", ["inverse", "l1", "none"])
def test_nothing_dropped_is_task_arithmetic_bit_for_bit(rescale: Any) -> None:
    changes = normals(0, 3)
    params = Params(keep=1, alpha=0.7, rescale=rescale)
    merged, _ = blend(formula(params), np.zeros((40, 30)), changes, [1, 0.5, -2])
    assert merged.tobytes() == arithmetic(changes, [1, 0.5, -2], 0.7).tobytes()


def test_the_mean_over_2000_seeds_is_task_arithmetic() -> None:
    """Each entry's mean within 3 standard errors: d sqrt((1 - keep) / keep / 2000)."""
    change = f32([0.5, -1, 2, -3, 4, 0.25, -0.125, 8])
    merged = np.array([blend(formula(Params(keep=0.3), seed), np.zeros(8), [change])[0] for seed in range(2000)], dtype=np.float64)
    error = np.abs(change) * (0.7 / 0.3 / 2000) ** 0.5
    assert (np.abs(merged.mean(axis=0) - change) < 3 * error).all()


@given(seed=st.integers(0, 2**62), keep=st.sampled_from([0.2, 0.5, 0.9]))
@settings(max_examples=60, deadline=None)
def test_an_entry_is_dropped_or_divided_by_keep(seed: int, keep: float) -> None:
    change = normals(5, 1, (200,))[0]
    merged, _ = blend(formula(Params(keep=keep), seed), np.zeros(200), [change])
    np.testing.assert_array_equal(merged, np.where(merged != 0, change * np.float32(1 / keep), 0))
    assert 0 < np.count_nonzero(merged) < 200


@given(seed=st.integers(0, 2**62))
@settings(max_examples=30, deadline=None)
def test_l1_gives_the_norm_back(seed: int) -> None:
    change = normals(6, 1, (500,))[0]
    merged, _ = blend(formula(Params(keep=0.3, rescale="l1"), seed), np.zeros(500), [change])
    assert np.abs(merged).sum() == pytest.approx(np.abs(change).sum(), rel=1e-5)


def test_experts_have_masks_of_their_own() -> None:
    ones = np.ones(10_000)
    _, (a, b) = blend(formula(Params(keep=0.5, rescale="none")), ones, [ones, ones])
    assert np.count_nonzero(a * b) == pytest.approx(2500, abs=4 * 44), "0.5 x 0.5 of them, standard deviation 43.3"


def test_masks_do_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = normals(7, 2, (64, 50))
    params = Params(keep=0.4)
    one, _ = blend(formula(params, 3), np.zeros((64, 50)), changes)
    monkeypatch.setattr(tensors, "BLOCK", 100)
    many, _ = blend(formula(params, 3), np.zeros((64, 50)), changes)
    assert one.tobytes() == many.tobytes()


@pytest.mark.parametrize("rescale", ["inverse", "l1", "none"])
def test_no_change_stays_no_change(rescale: Any) -> None:
    base = normals(8, 1)[0]
    merged, _ = blend(formula(Params(rescale=rescale)), base, [np.zeros_like(base)] * 2)
    assert (base + merged).tobytes() == base.tobytes()


def test_overrides_reach_the_formula() -> None:
    params = Params(keep=0.5, overrides=[{"match": "norm", "params": {"keep": 1, "alpha": 2}}])
    change = normals(9, 1)[0]
    merged, _ = blend(formula(params), np.zeros((40, 30)), [change], name="norm")
    np.testing.assert_array_equal(merged, 2 * change)
    assert np.count_nonzero(blend(formula(params), np.zeros((40, 30)), [change], name="w")[0]) < 800


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"keep": 1}, "keep = 1 drops nothing: this is task arithmetic"),
        ({"weights": {"a": float("nan")}}, "weights.a = nan"),
        ({"keep": 1.5}, "keep = 1.5: .* Allowed: float > 0 and <= 1"),
        ({"rescale": "l2"}, "rescale = 'l2'"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check(validate(Params, values, "params"))


def test_a_run_uses_the_seed_of_its_context(tmp_path: Path) -> None:
    base, experts = family(tmp_path)
    params = Params(keep=0.3, alpha=0.5, rescale="l1", weights={"expert_1": 3.0})
    found = outcome(run, Inputs(base, experts), params, tmp_path / "run", seed=5)
    other = outcome(run, Inputs(base, experts), params, tmp_path / "other", seed=6)
    assert found.digests["model/model.safetensors"] != other.digests["model/model.safetensors"]
    matrix = next(row for row in found.rows if row["tensor"] == "model.layers.0.mlp.weight")
    assert matrix["kept_n"] / matrix["numel"] == pytest.approx(0.3, abs=0.01)
    assert matrix["rescale"] == pytest.approx(1 / 0.3, rel=0.05)
    for name, (theta, changes) in changes_of(base, experts).items():
        subject = replace(tensor(theta, changes, [1, 3], name), labels=["expert_0", "expert_1"])
        merged, _ = blended(subject, formula(params, 5)(subject))
        np.testing.assert_array_equal(found.tensors[name], theta + merged)


def test_same_bytes_for_any_number_of_threads_and_any_order(tmp_path: Path) -> None:
    one, two, four = on_1_2_and_4_threads(run, Params(keep=0.3), tmp_path)
    assert one == two == four
