"""Intruders counted and weakened by hand, at the limits, beside their control, on files, and on input that must be refused.

Worked example: W_0 [6, 3] has singular values 3, 2 and .01 along e1, e2 and e3; the change turns the third column into 5 e5.
    W_t = 3 e1 f1' + 2 e2 f2' + 5 e5 f3': singular values 5 (e5), 3 (e1), 2 (e2). e5 is orthogonal to all of U_0 = [e1 e2 e3]: c = 0, an
    intruder, the first by rank. e1 and e2 have c = 1. With keep .75 its singular value becomes 3.75 and the rest stays.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contract.params import BadInput
from tasks.merge import Inputs, task_arithmetic
from tasks.merge.core.headers import Array
from tasks.merge.core.params import Override
from tasks.merge.core.tensors import BLOCK
from tasks.merge.intruder_scaling import Params, check, formula, intruders, noise, run
from tests.merge.folders import family, save
from tests.merge.formulas import blend, f32, stats
from tests.merge.runs import normals, outcome

SMOKE = {"keep": 0.5, "top_k": 4}

W0, CHANGE = np.zeros((6, 3), np.float32), np.zeros((6, 3), np.float32)
W0[[0, 1, 2], [0, 1, 2]] = [3, 2, 0.01]
CHANGE[[2, 4], [2, 2]] = [-0.01, 5]


def spectrum(matrix: Array) -> Array:
    """Singular values, largest first."""
    return np.linalg.svd(matrix, compute_uv=False)


def trained(seed: int, rows: int = 64, columns: int = 48) -> Array:
    """A matrix as a trained model has it: singular values 10, 9, 8.1, ..., well apart."""
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.normal(size=(size, columns)))[0] for size in (rows, columns))
    return f32((left * (10 * 0.9 ** np.arange(columns))) @ right.T)


def low_rank(seed: int, size: float, rows: int = 64, columns: int = 48, rank: int = 2) -> Array:
    """A change of small rank, each direction with a singular value of about `size`."""
    rng = np.random.default_rng(seed)
    left, right = rng.normal(size=(rows, rank)), rng.normal(size=(rank, columns))
    return f32(size * left / math.sqrt(rows) @ right / math.sqrt(columns))


@pytest.mark.parametrize("keep", [0.75, 0.25, 0])
def test_worked_example(keep: float) -> None:
    merged, (left,) = blend(formula(Params(keep=keep)), W0, [CHANGE])
    wanted = np.zeros((6, 3))
    wanted[[0, 1, 4], [0, 1, 2]] = [3, 2, 5 * keep]
    np.testing.assert_allclose(W0 + merged, wanted, atol=1e-5)
    np.testing.assert_array_equal(left, merged)
    (said,) = stats(formula(Params(keep=keep)), W0, [CHANGE])
    assert (said["intruders"], said["intruder_rank"]) == (1, 1)
    assert said["intruder_s"] == pytest.approx(5) and said["least_cos"] == pytest.approx(0, abs=1e-6)
    assert said["chance_cos"] == pytest.approx(math.sqrt(2 * math.log(3) / 6))


def test_only_the_largest_are_looked_at() -> None:
    """Of singular values 3, 2 and 1.5 the intruder is the third: top_k 2 does not see it."""
    change = f32(CHANGE * 0.3)
    change[2, 2] = -0.01
    for top_k, rank in ((3, 3), (2, None)):
        (said,) = stats(formula(Params(top_k=top_k)), W0, [change])
        assert said["intruder_rank"] == rank and (said["intruder_s"] is None) == (rank is None)
    unseen, _ = blend(formula(Params(top_k=2)), W0, [change])
    np.testing.assert_array_equal(unseen, change)


def test_without_intruders_it_is_the_expert_bit_for_bit() -> None:
    base, change = trained(0), np.float32(0.01) * normals(0, 1, (64, 48))[0]
    repaired, _ = blend(formula(Params()), base, [change])
    whole, _ = blend(task_arithmetic.formula(task_arithmetic.Params(alpha=1)), base, [change])
    assert repaired.tobytes() == whole.tobytes()
    assert stats(formula(Params()), base, [change])[0]["intruders"] == 0


def test_no_change_gives_the_base_and_counts_nothing() -> None:
    repaired, _ = blend(formula(Params()), W0, [np.zeros_like(W0)])
    assert not repaired.any() and stats(formula(Params()), W0, [np.zeros_like(W0)]) == []


@given(seed=st.integers(0, 10_000), keep=st.floats(0, 0.99), size=st.floats(1, 30))
@settings(max_examples=25, deadline=None)
def test_singular_values_of_intruders_are_multiplied_and_no_others(seed: int, keep: float, size: float) -> None:
    base, change = trained(seed), low_rank(seed + 1, size)
    basis = np.linalg.svd(base, full_matrices=False)[0]
    found = intruders(basis, base + change, 10, 0.5)
    before = spectrum(base + change)
    wanted = before.copy()
    wanted[found.places] *= keep
    repaired, _ = blend(formula(Params(keep=keep)), base, [change])
    np.testing.assert_allclose(spectrum(base + repaired), np.sort(wanted)[::-1], atol=1e-3)
    assert (found.cosines[found.places] < 0.5).all() and len(found.places) == np.count_nonzero(found.cosines < 0.5)


def test_large_changes_of_small_rank_intrude_and_the_control_tells_the_norm_apart() -> None:
    """Two planted directions of twice the base's largest singular value; Gaussian noise of that norm is spread over 48 of them."""
    (said,) = stats(formula(Params()), trained(1), [low_rank(2, 20)])
    assert said["intruders"] == 2 and said["intruder_rank"] == 1
    assert said["chance_cos"] == pytest.approx(math.sqrt(2 * math.log(48) / 64)) and said["chance_cos"] < 0.5
    (gentle,) = stats(formula(Params()), trained(1), [low_rank(2, 0.5)])
    assert (gentle["intruders"], gentle["control_count"]) == (0, 0)
    assert said["control_count"] > 2, "noise of that norm makes more: the count alone says little"


def test_the_control_has_the_norm_of_the_change_and_depends_on_the_name_alone() -> None:
    change = low_rank(3, 4)
    drawn = noise("w", change)
    assert np.linalg.norm(drawn) == pytest.approx(np.linalg.norm(change), rel=1e-5)
    np.testing.assert_allclose(noise("w", 2 * change), 2 * drawn, rtol=1e-5)
    assert abs(float(np.vdot(noise("v", change), drawn))) < 0.1 * float(np.vdot(drawn, drawn))


def test_a_matrix_of_many_blocks_is_repaired_in_each() -> None:
    """Rows of 3: a block holds 10,922 of them; the intruder stands in rows of the first and of the last block."""
    rows = 2 * BLOCK // 3 + 5
    base, change = (np.zeros((rows, 3), np.float32) for _ in range(2))
    base[[0, 1, 2], [0, 1, 2]] = [3, 2, 0.01]
    change[[2, 4, rows - 1], [2, 2, 2]] = [-0.01, 3, 4]
    repaired, _ = blend(formula(Params(keep=0.5)), base, [change])
    np.testing.assert_allclose((base + repaired)[[0, 1, 2, 4, rows - 1]].sum(axis=1), [3, 2, 0, 1.5, 2], atol=1e-5)


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "lm_head.weight"])
def test_tables_are_left_as_the_expert_has_them(name: str) -> None:
    same, _ = blend(formula(Params(keep=0)), W0, [CHANGE], name=name)
    np.testing.assert_array_equal(same, CHANGE)
    repaired, _ = blend(formula(Params(keep=0, skip="^none$")), W0, [CHANGE], name=name)
    np.testing.assert_allclose(repaired[4, 2], 0, atol=1e-5)


@pytest.mark.parametrize("shape", [(), (18,), (3, 3, 2)])
def test_what_is_no_matrix_is_left_as_the_expert_has_it(shape: tuple[int, ...]) -> None:
    change = f32(np.resize(CHANGE, shape))
    same, _ = blend(formula(Params(keep=0)), np.resize(W0, shape), [change], shape=shape)
    np.testing.assert_array_equal(same, change)


def folders(folder: Path) -> tuple[Path, dict[str, Path]]:
    """A base and one expert that intruded into both matrices and moved the norm."""
    start = {"layers.0.q": trained(4), "layers.1.q": trained(5), "small.q": W0, "norm": np.ones(4, np.float32)}
    moved = {"layers.0.q": low_rank(6, 20), "layers.1.q": low_rank(7, 20), "small.q": CHANGE, "norm": np.full(4, 0.5, np.float32)}
    base = save(folder / "base", start)
    return base, {"expert": save(folder / "expert", {name: start[name] + change for name, change in moved.items()})}


def test_a_run_counts_and_overrides_reach_the_formula(tmp_path: Path) -> None:
    params = Params(keep=0.5, overrides=[Override(match="layers.1", params={"keep": 1.0})], max_relative_delta=2)
    base, experts = folders(tmp_path)
    made = outcome(run, Inputs(base, experts), params, tmp_path / "m")
    tuned = {name: spectrum(trained(seed) + low_rank(seed + 2, 20)) for name, seed in (("layers.0.q", 4), ("layers.1.q", 5))}
    np.testing.assert_allclose(spectrum(made.tensors["layers.1.q"]), tuned["layers.1.q"], atol=1e-3)
    assert spectrum(made.tensors["layers.0.q"])[0] < 0.8 * tuned["layers.0.q"][0]
    np.testing.assert_array_equal(made.tensors["norm"], np.full(4, 1.5))
    counted = [row["intruders"] for row in made.rows]
    assert counted[-2] is None and made.figures["intruders"] == sum(value for value in counted if value is not None) == 5
    assert made.figures["control_count"] == sum(row["control_count"] or 0 for row in made.rows)
    assert (made.figures["matrices"], made.figures["too_small"]) == (3, 1), "6 dimensions: by chance .61"
    expert = made.figures["experts"]["expert"]
    assert made.figures["same_norm_alpha"] == expert["masked_l2"] / expert["delta_l2"] < 0.9


def test_same_bytes_for_any_number_of_threads(tmp_path: Path) -> None:
    inputs = Inputs(*folders(tmp_path))
    digests = [outcome(run, inputs, Params(max_relative_delta=2), tmp_path / str(threads), threads).digests for threads in (1, 2, 4)]
    assert digests[0] == digests[1] == digests[2]


def test_two_experts_are_refused(tmp_path: Path) -> None:
    base, experts = family(tmp_path)
    with pytest.raises(BadInput, match="exactly one expert; given: expert_0, expert_1"):
        outcome(run, Inputs(base, experts), Params(), tmp_path / "m")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"keep": 1}, "keep = 1 leaves every intruder whole"),
        ({"weights": {"a": 0.5}}, "weights mean nothing"),
        ({"overrides": [{"match": "w", "weights": {"a": 0.5}}]}, "weights mean nothing"),
        ({"skip": "("}, r"skip = '\(' is no regular expression"),
        ({"overrides": [{"match": "w", "params": {"skip": "["}}]}, r"skip = '\[' is no regular expression"),
    ],
)
def test_params_without_sense_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check(Params(**params))
