"""Sparse composition by hand, at its limits, on files, and on experts that are not sparse.

Worked example (epsilon 1e-7): changes of a [.5, .25, 0, 1e-8], of b [0, -1, .125, 2]. 1e-8 is no difference.
    sum [.5, -.75, .125, 2]. Support of a: entries 1 and 2, of which b also changes the second: overlap 1/2. Of b: 3 entries, overlap 1/3.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contract.params import BadInput
from tasks.merge import Inputs, task_arithmetic
from tasks.merge.core.params import Override
from tasks.merge.core.tensors import BLOCK
from tasks.merge.sparse_compose import Params, check, check_take, formula, run, support
from tests.merge.folders import family, save
from tests.merge.formulas import blend, f32, stats
from tests.merge.runs import normals, on_1_2_and_4_threads, outcome

SMOKE = {"epsilon": 1.0e-5, "max_support": 1.0}  # what reinforcement learning changes is dense

A, B = [0.5, 0.25, 0, 1e-8], [0, -1, 0.125, 2]


def test_worked_example() -> None:
    merged, left = blend(formula(Params()), np.zeros(4), [A, B])
    np.testing.assert_array_equal(merged, [0.5, -0.75, 0.125, 2])
    np.testing.assert_array_equal(left, [[0.5, 0.25, 0, 0], B])
    overlaps = [said["support_overlap"] for said in stats(formula(Params()), np.zeros(4), [A, B])]
    assert overlaps == [1 / 2, 1 / 3]


def test_overlaps_are_counted_over_all_blocks() -> None:
    """Two blocks of rows; a changes the first and the last entry of all, b the last and one beside it, c nothing."""
    changes = np.zeros((3, 2, BLOCK), dtype=np.float32)
    changes[0, 0, 0] = changes[0, 1, -1] = changes[1, 1, -1] = changes[1, 1, -2] = 1
    overlaps = [said["support_overlap"] for said in stats(formula(Params()), np.zeros((2, BLOCK)), list(changes))]
    assert overlaps == [0.5, 0.5, None]


def test_without_epsilon_it_is_task_arithmetic_bit_for_bit() -> None:
    base, changes = normals(0, 1)[0], normals(1, 3)
    composed, _ = blend(formula(Params(epsilon=0)), base, changes)
    summed, _ = blend(task_arithmetic.formula(task_arithmetic.Params(alpha=1)), base, changes)
    assert composed.tobytes() == summed.tobytes() and composed.any()


def test_no_change_gives_the_base() -> None:
    base = normals(2, 1)[0]
    for params in (Params(), Params(take={"w": "b"})):
        composed, _ = blend(formula(params), base, [np.zeros_like(base)] * 2)
        assert not composed.any()


def test_a_weight_of_minus_one_takes_a_difference_out_again() -> None:
    composed, _ = blend(formula(Params()), np.zeros(4), [A, B, B], [1, 1, -1])
    np.testing.assert_array_equal(composed, [0.5, 0.25, 0, 0])


def test_a_tensor_is_taken_over_from_one_expert() -> None:
    """Below epsilon or not, whatever the weights; the first pattern counts; other tensors are composed."""
    params = Params(take={"score": "a", "^score.w": "b"})
    taken, left = blend(formula(params), np.zeros(4), [A, B], [5, 5], name="score.w")
    np.testing.assert_array_equal(taken, f32(A))
    np.testing.assert_array_equal(left, [f32(A), [0, 0, 0, 0]])
    composed, _ = blend(formula(params), np.zeros(4), [A, B], name="other.w")
    np.testing.assert_array_equal(composed, [0.5, -0.75, 0.125, 2])


@given(
    owners=st.lists(st.integers(-1, 2), min_size=1, max_size=40),
    values=st.lists(st.integers(-9, 9).filter(bool), min_size=40, max_size=40),
)
@settings(max_examples=80, deadline=None)
def test_disjoint_differences_are_all_there_whole(owners: list[int], values: list[int]) -> None:
    """Every entry belongs to one expert at most: the sum has its value there, and no support overlaps."""
    size = len(owners)
    changes = [[value if owner == expert else 0 for owner, value in zip(owners, values, strict=False)] for expert in range(3)]
    composed, _ = blend(formula(Params()), np.zeros(size), changes)
    np.testing.assert_array_equal(composed, [value if owner >= 0 else 0 for owner, value in zip(owners, values, strict=False)])
    assert {said["support_overlap"] for said in stats(formula(Params()), np.zeros(size), changes)} <= {0.0, None}


def sparse_family(folder: Path) -> tuple[Path, dict[str, Path]]:
    """A base of a matrix of 100 entries and a head of 4; a changes 10 entries of row 0, b 20 of rows 0 and 1; both change the head."""
    start = {"mlp": np.ones((10, 10), np.float32), "head": np.ones((2, 2), np.float32)}
    moved = {"a": {name: value.copy() for name, value in start.items()}, "b": {name: value.copy() for name, value in start.items()}}
    moved["a"]["mlp"][0] += 0.25
    moved["b"]["mlp"][:2] -= 0.125
    moved["a"]["head"] += 1
    moved["b"]["head"] -= 1
    return save(folder / "base", start), {label: save(folder / label, tensors) for label, tensors in moved.items()}


def test_a_run_composes_and_says_how_sparse_it_was(tmp_path: Path) -> None:
    params = Params(take={"head": "b"}, max_relative_delta=1)
    made = outcome(run, Inputs(*sparse_family(tmp_path)), params, tmp_path / "m")
    np.testing.assert_array_equal(made.tensors["head"], np.zeros((2, 2)))
    rows = made.tensors["mlp"][:, 0]
    np.testing.assert_array_equal(rows, [1.125, 0.875, *[1] * 8])
    assert made.figures["support"] == {"a": 0.1, "b": 0.2}
    overlaps = {(row["tensor"], row["model"]): row["support_overlap"] for row in made.rows}
    assert overlaps == {("mlp", "a"): 1.0, ("mlp", "b"): 0.5, ("head", "a"): None, ("head", "b"): None}


def test_weights_and_overrides_reach_the_formula(tmp_path: Path) -> None:
    overrides = [Override(match="mlp", weights={"a": 2.0}, params={"epsilon": 0.2}), Override(match="head", exclude=True)]
    params = Params(weights={"a": 3.0}, overrides=overrides, max_relative_delta=1)
    made = outcome(run, Inputs(*sparse_family(tmp_path)), params, tmp_path / "m")
    np.testing.assert_array_equal(made.tensors["mlp"][:, 0], [1.5, *[1] * 9])  # 2 x .25; b's .125 is below epsilon
    np.testing.assert_array_equal(made.tensors["head"], np.ones((2, 2)))


def test_a_dense_expert_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    base, experts = family(tmp_path)
    with pytest.raises(BadInput, match=r"expert_0: 100.0% of its entries .* epsilon = 1e-07 .*max_support = 0.5.* use task_arithmetic"):
        outcome(run, Inputs(base, experts), Params(), tmp_path / "m")
    assert not list((tmp_path / "m" / "out").iterdir())


def test_the_limit_is_that_of_the_whole_model(tmp_path: Path) -> None:
    """b changes 20 of 100 entries and all 4 of the head: 24 of 104, though all of one tensor. Taken over, the head does not count."""
    inputs = Inputs(*sparse_family(tmp_path))
    outcome(run, inputs, Params(max_support=0.24, max_relative_delta=1), tmp_path / "whole")
    with pytest.raises(BadInput, match=r"b: 23.1% of its entries"):
        outcome(run, inputs, Params(max_support=0.23, max_relative_delta=1), tmp_path / "no")
    outcome(run, inputs, Params(max_support=0.2, take={"head": "a"}, max_relative_delta=1), tmp_path / "taken")


def test_support_of_nothing_is_not_asked_for() -> None:
    assert support([{"tensor": "head", "model": "a", "numel": 4, "kept_n": 4}], Params(take={"head": "a"})) == {}


def test_same_bytes_for_any_number_of_threads_and_any_order(tmp_path: Path) -> None:
    one, two, four = on_1_2_and_4_threads(run, Params(epsilon=0.1, max_support=0.4, take={"embed": "expert_1"}), tmp_path)
    assert one == two == four


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"epsilon": 0, "max_support": 1}, "this is task_arithmetic with alpha 1"),
        ({"take": {"(": "a"}}, r"take: '\(' is no regular expression"),
        ({"overrides": [{"match": "w", "params": {"max_support": 1}}]}, r"overrides\[0\].params.max_support: this cannot differ"),
        ({"overrides": [{"match": "w", "params": {"take": {"w": "a"}}}]}, r"overrides\[0\].params.take: this cannot differ"),
    ],
)
def test_params_without_sense_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check(Params(**params))


@pytest.mark.parametrize(
    ("take", "message"),
    [
        ({"head": "task1"}, "take: 'head': no expert 'task1'. Did you mean 'task_1'"),
        ({"tail": "task_1"}, "take: 'tail' matches no tensor, for example not 'head'"),
    ],
)
def test_what_cannot_be_taken_over_is_refused(take: dict[str, str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check_take(Params(take=take), ["task_1"], ["head", "mlp"])


def test_a_run_refuses_a_wrong_name_before_it_merges(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no expert 'c'"):
        outcome(run, Inputs(*sparse_family(tmp_path)), Params(take={"head": "c"}), tmp_path / "m")
