"""Reinforced Agent Merging by hand, at its limits, on files, and on input that must be refused.

Worked example: d1 = [1, 0, 2], d2 = [0, 3, 4]. Entry 1 is the first's alone, entry 2 the second's, entry 3 is shared: [1, 3, (2 + 4) / 2].
RAM+, r = 0.1, a = 0.2: each expert has one shared and one unique entry, ratio 1, clipped to 0.2: unique entries times 1.02.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contract.params import BadInput, validate
from tasks.merge import Inputs
from tasks.merge.core import tensors
from tasks.merge.ram import Params, boost, check, counts, formula, run
from tests.merge.folders import family
from tests.merge.formulas import blend, f32, stats, tensor
from tests.merge.runs import arithmetic, changes_of, normals, on_1_2_and_4_threads, outcome

SMOKE = {"alpha": 0.5, "plus": True}

ONE, TWO = [1, 0, 2], [0, 3, 4]
NOTHING = [0, 0, 0]
SPARSE = st.lists(st.lists(st.integers(-2, 2), min_size=12, max_size=12), min_size=1, max_size=4)


def test_worked_example() -> None:
    merged, masked = blend(formula(Params()), NOTHING, [ONE, TWO])
    np.testing.assert_array_equal(merged, [1, 3, 3])
    np.testing.assert_array_equal(masked, [ONE, TWO])
    np.testing.assert_array_equal(blend(formula(Params(alpha=0.5)), NOTHING, [ONE, TWO])[0], [0.5, 1.5, 1.5])


def test_worked_example_of_ram_plus() -> None:
    merged, masked = blend(formula(Params(plus=True)), NOTHING, [ONE, TWO])
    np.testing.assert_allclose(merged, [1.02, 3.06, 3], rtol=1e-6)
    np.testing.assert_array_equal(masked, [ONE, TWO])
    assert [one["unique_boost"] for one in stats(formula(Params(plus=True)), NOTHING, [ONE, TWO])] == [1.02, 1.02]


def test_boosts_by_hand() -> None:
    """1 shared of 10 unique: 1 + 0.1 x 0.1. Nothing unique: nothing to strengthen. Nothing shared: nothing to make up for."""
    own = Params(plus=True)
    assert [boost(1, 10, own), boost(5, 0, own), boost(0, 5, own)] == [1.01, 1, 1]
    assert boost(3, 1, Params(plus=True, r=0.2, a=1)) == 1.2


def test_each_expert_has_a_boost_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted over the blocks: the first has 1 shared and 9 unique entries, the second 1 and 1."""
    monkeypatch.setattr(tensors, "BLOCK", 4)
    one = [1] * 10 + [0, 0]
    two = [0] * 9 + [1, 1, 0]
    shape = (6, 2)
    assert counts(tensor([0.0] * 12, [one, two], shape=shape), 1e-5) == [(1, 9), (1, 1)]
    merged, _ = blend(formula(Params(plus=True)), [0.0] * 12, [one, two], shape=shape)
    np.testing.assert_allclose(merged.reshape(-1), [1 + 0.1 / 9] * 9 + [1, 1.02, 0], rtol=1e-6)


def test_a_change_up_to_epsilon_is_none() -> None:
    """At epsilon 0.5 the second expert's .5 is no change, so the first's 3 is its alone; -.6 is one."""
    merged, masked = blend(formula(Params(epsilon=0.5)), [0, 0], [[3, 1], [0.5, -0.6]])
    np.testing.assert_allclose(merged, [3, 0.2], rtol=1e-6)
    assert masked[1][0] == 0
    assert blend(formula(Params()), [0], [[1e-5], [9e-6]])[0] == 0, "1e-5 itself is none by default"


def test_one_expert_is_task_arithmetic_bit_for_bit() -> None:
    (change,) = normals(0, 1)
    for plus in (False, True):
        merged, _ = blend(formula(Params(epsilon=0, alpha=0.7, plus=plus)), np.zeros((40, 30)), [change])
        assert merged.tobytes() == arithmetic([change], [1], 0.7).tobytes()


def test_changes_in_different_places_are_task_arithmetic_bit_for_bit() -> None:
    changes = normals(1, 3)
    for index, change in enumerate(changes):
        change[:, np.arange(30) % 3 != index] = 0
    merged, _ = blend(formula(Params(epsilon=0, alpha=0.7)), np.zeros((40, 30)), changes)
    assert merged.tobytes() == arithmetic(changes, [1, 1, 1], 0.7).tobytes()


@given(changes=SPARSE, weights=st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]), min_size=4, max_size=4))
@settings(max_examples=150, deadline=None)
def test_against_the_definition(changes: list[list[int]], weights: list[float]) -> None:
    weights = weights[: len(changes)]
    wanted = []
    for entries in zip(*changes, strict=True):
        active = [(weight, entry) for weight, entry in zip(weights, entries, strict=True) if entry and weight]
        wanted.append(sum(w * d for w, d in active) / sum(abs(w) for w, _ in active) if active else 0.0)
    np.testing.assert_array_equal(blend(formula(Params()), [0.0] * 12, changes, weights)[0], f32(wanted))


@given(changes=SPARSE)
@settings(max_examples=80, deadline=None)
def test_order_does_not_matter_and_weights_act_among_sharers_alone(changes: list[list[int]]) -> None:
    for params in (Params(), Params(plus=True)):
        merged, _ = blend(formula(params), [0.0] * 12, changes)
        np.testing.assert_array_equal(merged, blend(formula(params), [0.0] * 12, changes[::-1])[0])
        weighted, _ = blend(formula(params), [0.0] * 12, changes, [4.0, 0.5, 1.0, 2.0][: len(changes)])
        unique = np.count_nonzero(changes, axis=0) == 1
        np.testing.assert_array_equal(weighted[unique], merged[unique])


def test_weight_0_leaves_an_expert_out() -> None:
    """It is no sharer either: the other's entries are all its own, so RAM+ has nothing to make up for."""
    merged, masked = blend(formula(Params(plus=True)), NOTHING, [ONE, TWO], [1, 0])
    np.testing.assert_array_equal(merged, ONE)
    np.testing.assert_array_equal(masked, [ONE, NOTHING])


def test_no_change_stays_no_change() -> None:
    base = normals(2, 1)[0]
    for plus in (False, True):
        merged, _ = blend(formula(Params(plus=plus)), base, [np.zeros_like(base)] * 2)
        assert (base + merged).tobytes() == base.tobytes()


def test_overrides_reach_the_formula() -> None:
    params = Params(overrides=[{"match": "norm", "params": {"epsilon": 0.9, "plus": True, "a": 1.0, "alpha": 2}}])
    np.testing.assert_allclose(blend(formula(params), NOTHING, [ONE, TWO], name="norm")[0], [2.2, 6.6, 6], rtol=1e-6)
    np.testing.assert_array_equal(blend(formula(params), NOTHING, [ONE, TWO], name="w")[0], [1, 3, 3])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"r": 0.2}, r"r = 0\.2 does nothing without plus: true\. Set that, or leave r at 0\.1"),
        ({"a": 1}, r"a = 1\.0 does nothing without plus"),
        ({"plus": True, "r": 0}, "r = 0: .* Allowed: float > 0"),
        ({"epsilon": -1}, "epsilon = -1: .* Allowed: float >= 0"),
        ({"weights": {"a": float("inf")}}, "weights.a = inf"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check(validate(Params, values, "params"))


def test_settings_of_ram_plus_are_for_ram_plus() -> None:
    check(Params(plus=True, r=0.2, a=1.0))


def test_a_run_with_weights(tmp_path: Path) -> None:
    base, experts = family(tmp_path)
    params = Params(epsilon=0.05, alpha=0.5, plus=True, weights={"expert_1": 3.0})
    found = outcome(run, Inputs(base, experts), params, tmp_path / "run")
    for name, (theta, changes) in changes_of(base, experts).items():
        merged, _ = blend(formula(params), theta, changes, [1, 3], name)
        np.testing.assert_array_equal(found.tensors[name], theta + merged)
    matrix = next(row for row in found.rows if row["tensor"] == "model.layers.0.mlp.weight")
    assert matrix["unique_boost"] == pytest.approx(1.02), "61.7 % of the steps of 0.1 exceed 0.05: more are shared than unique"
    assert matrix["kept_n"] / matrix["numel"] == pytest.approx(0.617, abs=0.01)


@pytest.mark.parametrize("plus", [False, True])
def test_same_bytes_for_any_number_of_threads_and_any_order(tmp_path: Path, plus: bool) -> None:
    one, two, four = on_1_2_and_4_threads(run, Params(plus=plus, epsilon=0.1), tmp_path)
    assert one == two == four
