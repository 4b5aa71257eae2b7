"""Slerp by hand, as a tree of more than two models, where it is lerp, on files, and on input that must be refused.

Worked examples:
    two models   [1, 0] and [0, 1], 90 degrees apart: t = .5 gives [.70711, .70711], t = 1/3 turns by 30 degrees: [.86603, .5]
    three        task vectors e1 (origin), e2, e3, t = .5, weights 1 and 3. Shares .5, .125, .375; the tree is e1 | (e2 | e3).
                 e2 | e3 at t = .375 / .5 = .75: sin(22.5) e2 + sin(67.5) e3 = .38268 e2 + .92388 e3, of length 1, at 90 degrees to e1.
                 The root at t = .5: .70711 e1 + .27060 e2 + .65328 e3
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
from tasks.merge import Inputs, linear, task_arithmetic
from tasks.merge.core.headers import Array
from tasks.merge.core.params import Override
from tasks.merge.slerp import Params, check, check_experts, formula, order, run
from tests.merge.folders import family
from tests.merge.formulas import blend, f32, stats
from tests.merge.runs import arithmetic, changes_of, normals, on_1_2_and_4_threads, outcome

SMOKE = {"t": 0.7}


def between(v0: Any, v1: Any, t: float) -> Array:
    """The base v0 and one expert v1 in weight space."""
    change, _ = blend(formula(Params(t=t)), v0, [f32(v1) - f32(v0)])
    return np.add(v0, change)


def test_worked_example() -> None:
    np.testing.assert_allclose(between([1, 0], [0, 1], 0.5), [math.sqrt(0.5), math.sqrt(0.5)], rtol=1e-6)
    np.testing.assert_allclose(between([1, 0], [0, 1], 1 / 3), [math.sqrt(0.75), 0.5], rtol=1e-6)
    assert stats(formula(Params()), [1, 0], [[-1, 1]]) == [{"slerp_cos": 0.0, "slerp_fallback": 0}]


def test_lengths_are_not_normalised() -> None:
    """[2, 0] and [0, 6] at t = .5: sin(45) / sin(90) of each."""
    np.testing.assert_allclose(between([2, 0], [0, 6], 0.5), [2 * math.sqrt(0.5), 6 * math.sqrt(0.5)], rtol=1e-6)


@pytest.mark.parametrize(("factor", "cosine"), [(1.0001, 1), (-2, -1)])
def test_parallel_and_opposite_are_lerp(factor: float, cosine: int) -> None:
    v0 = f32([1, 2, 2])
    np.testing.assert_allclose(between(v0, factor * v0, 0.25), (0.75 + 0.25 * factor) * v0, rtol=1e-6)
    (said,) = stats(formula(Params(t=0.25)), v0, [factor * v0 - v0])
    assert said == {"slerp_cos": pytest.approx(cosine, abs=1e-6), "slerp_fallback": 1}


@pytest.mark.parametrize(("degrees", "fallback"), [(1.80, 1), (1.83, 0)])
def test_the_fallback_begins_at_acos_of_0_9995(degrees: float, fallback: int) -> None:
    """acos(.9995) = 1.812 degrees."""
    v1 = [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]
    (said,) = stats(formula(Params()), [1, 0], [f32(v1) - f32([1, 0])])
    assert said["slerp_fallback"] == fallback


def test_where_it_is_lerp_it_is_task_arithmetic_bit_for_bit() -> None:
    base, (step,) = normals(0, 1)[0], normals(1, 1)
    change = np.float32(0.001) * step
    merged, left = blend(formula(Params(t=0.3)), base, [change])
    wanted, _ = blend(task_arithmetic.formula(task_arithmetic.Params(alpha=1)), base, [change], [0.3])
    assert merged.tobytes() == wanted.tobytes()
    np.testing.assert_array_equal(left[0], change)


def test_where_it_is_lerp_a_tree_is_the_average_with_its_shares() -> None:
    """Origin a with 1 - t = .4, then .6 by weights 1, 2, 3 of b, c, d: as linear with .4, .1, .2, .3."""
    base, changes = normals(2, 1)[0], [np.float32(0.001) * step for step in normals(3, 4)]
    merged, _ = blend(formula(Params(t=0.6, origin="a")), base, changes, [1, 1, 2, 3])
    average, _ = blend(linear.formula(linear.Params()), base, changes, [0.4, 0.1, 0.2, 0.3])
    np.testing.assert_allclose(merged, average, rtol=1e-4, atol=1e-9)


def test_task_vectors_are_interpolated_and_the_base_is_added() -> None:
    """d_a = [2, 0], d_b = [0, 2] at t = .5 give sqrt(2) [1, 1], whatever the base; the origin's side is t = 0."""
    params = Params(space="changes", origin="a")
    merged, _ = blend(formula(params), [50, -3], [[2, 0], [0, 2]])
    np.testing.assert_allclose(merged, [math.sqrt(2), math.sqrt(2)], rtol=1e-6)
    for origin, wanted in (("a", [math.sqrt(3), 1]), ("b", [1, math.sqrt(3)])):
        merged, _ = blend(formula(Params(space="changes", origin=origin, t=1 / 3)), [50, -3], [[2, 0], [0, 2]])
        np.testing.assert_allclose(merged, wanted, rtol=1e-6)


def test_three_models_by_hand() -> None:
    params = Params(space="changes", origin="a", t=0.5)
    merged, _ = blend(formula(params), np.zeros(3), list(np.eye(3)), [1, 1, 3])
    np.testing.assert_allclose(merged, [0.70711, 0.27060, 0.65328], atol=1e-5)


def test_four_equal_models_are_two_pairs() -> None:
    """Shares of a quarter each: every node is at t = .5, and (e1 + e2) sqrt(.5) meets (e3 + e4) sqrt(.5): all at .5."""
    merged, _ = blend(formula(Params(space="changes", origin="a", t=0.75)), np.zeros(4), list(np.eye(4)))
    np.testing.assert_allclose(merged, [0.5] * 4, rtol=1e-6)


def test_the_base_is_the_first_leaf_and_the_left_half_is_the_smaller() -> None:
    assert order("", ["a", "b"]) == [None, 0, 1]
    assert order("b", ["a", "b", "c"]) == [1, 0, 2]
    turned, _ = blend(formula(Params(t=0.5)), [1, 0, 0], [[-1, 1, 0], [-1, 0, 1]])  # base e1, experts e2 and e3
    np.testing.assert_allclose(turned + f32([1, 0, 0]), [math.sqrt(0.5), 0.5, 0.5], rtol=1e-6)  # e1 | (e2 | e3)


def test_the_ends_of_the_way() -> None:
    base, changes = normals(4, 1)[0], normals(5, 2)
    nothing, _ = blend(formula(Params(t=0)), base, changes)
    assert not nothing.any()
    for t, expert in ((0, 1), (1, 0)):
        params = Params(t=t, origin="b", space="changes")
        merged, _ = blend(formula(params), base, changes)
        np.testing.assert_array_equal(merged, changes[expert])
        assert stats(formula(params), base, changes)[0] == {"slerp_cos": None, "slerp_fallback": None}


@pytest.mark.parametrize("params", [Params(), Params(origin="a", t=0.3), Params(origin="a", space="changes")])
def test_no_change_gives_the_base(params: Params) -> None:
    base = normals(6, 1)[0]
    merged, _ = blend(formula(params), base, [np.zeros_like(base)] * 3)
    assert not merged.any()


def test_a_vector_without_direction_is_lerp() -> None:
    params = Params(origin="a", space="changes", t=0.25)
    merged, _ = blend(formula(params), [1, 1], [[0, 0], [4, 8]])
    np.testing.assert_array_equal(merged, [1, 2])
    assert stats(formula(params), [1, 1], [[0, 0], [4, 8]])[0] == {"slerp_cos": None, "slerp_fallback": 1}


def test_the_report_names_the_least_parallel_node() -> None:
    """a and b are parallel (lerp), c is at 60 degrees to both: the tree is a | (b | c), and not all of it fell back."""
    said = stats(formula(Params(origin="a", space="changes", t=0.5)), [0, 0], [[1, 0], [2, 0], [0.5, math.sqrt(0.75)]], [1, 1, 0])
    assert said[2] == {"slerp_cos": pytest.approx(1), "slerp_fallback": 1}, "c has no share here"
    said = stats(formula(Params(origin="a", space="changes", t=0.5)), [0, 0], [[1, 0], [2, 0], [0.5, math.sqrt(0.75)]], [1, 1, 1])
    assert said[0] == {"slerp_cos": pytest.approx(0.5), "slerp_fallback": 0} and said[0] == said[1] == said[2]


def test_a_lerp_above_an_arc() -> None:
    """Experts at +10 and -10 degrees, 20 apart: the middle of their arc is [1, 0], parallel to the base [2, 0]; the root is lerp."""
    turn = math.radians(10)
    changes = [f32([math.cos(turn) - 2, sign * math.sin(turn)]) for sign in (1, -1)]
    merged, _ = blend(formula(Params(t=0.25)), [2, 0], changes)
    np.testing.assert_allclose(merged, [-0.25, 0], atol=1e-6)
    (said, _) = stats(formula(Params(t=0.25)), [2, 0], changes)
    assert said == {"slerp_cos": pytest.approx(math.cos(2 * turn), abs=1e-6), "slerp_fallback": 0}, "one of two nodes fell back"


def test_anchors_over_the_layers() -> None:
    """[0, 1] at a quarter of the layers is t = .25."""
    for position, t in ((0.0, 0.0), (0.25, 0.25), (1.0, 1.0)):
        merged, _ = blend(formula(Params(t=[0, 1])), [1, 0], [[-1, 1]], position=position)
        np.testing.assert_allclose(merged + f32([1, 0]), [math.cos(t * math.pi / 2), math.sin(t * math.pi / 2)], atol=1e-6)


@given(angles=st.tuples(st.floats(0, 6.2), st.floats(0, 6.2)), t=st.floats(0, 1))
@settings(max_examples=150, deadline=None)
def test_the_arc_of_a_circle(angles: tuple[float, float], t: float) -> None:
    """Two vectors of length 1 that are not nearly parallel: the result has length 1, lies at t of the angle, and both ways are one."""
    v0, v1 = (f32([math.cos(angle), math.sin(angle)]) for angle in angles)
    if abs(float(v0 @ v1)) > 0.999:
        return
    found, back = between(v0, v1, t), between(v1, v0, 1 - t)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-3)
    assert math.acos(min(1.0, float(v0 @ found))) == pytest.approx(t * math.acos(float(v0 @ v1)), abs=5e-3)
    np.testing.assert_allclose(found, back, atol=1e-3)


def test_a_run_says_how_much_of_it_was_lerp(tmp_path: Path) -> None:
    """A step of .1 turns a random tensor by acos(1 / sqrt(1.01)), 5.7 degrees; a step of .01 by .6: all is lerp. A scalar always is."""
    far, near = family(tmp_path / "far", experts=1), family(tmp_path / "near", experts=1, step=0.01)
    params = Params(t=0.5, overrides=[Override(match="mlp", params={"t": 0.25}), Override(match="embed", exclude=True)])
    made = outcome(run, Inputs(*far), params, tmp_path / "a")
    assert made.figures["slerp_fallback_share"] == pytest.approx(1 / 3)
    assert {row["tensor"]: row["slerp_fallback"] for row in made.rows} == {
        "model.layers.0.mlp.weight": 0,
        "model.norm.weight": 0,
        "scale": 1,
    }
    made = outcome(run, Inputs(*near), params, tmp_path / "b")
    assert made.figures["slerp_fallback_share"] == 1
    for name, (start, changes) in changes_of(*near).items():
        way = next((way for part, way in {"mlp": 0.25, "embed": 0.0}.items() if part in name), 0.5)
        np.testing.assert_array_equal(made.tensors[name], start + arithmetic(changes, [way], 1))


def test_on_files_it_is_the_formula_of_whole_weights(tmp_path: Path) -> None:
    base, experts = family(tmp_path)
    made = outcome(run, Inputs(base, experts), Params(origin="expert_1", t=0.3), tmp_path / "m")
    name = "model.layers.0.mlp.weight"
    start, changes = changes_of(base, experts)[name]
    v1, v0 = ((start + change).astype(np.float64) for change in changes)
    phi = math.acos(float(np.sum(v0 * v1)) / math.sqrt(np.sum(v0 * v0) * np.sum(v1 * v1)))
    wanted = (math.sin(0.7 * phi) * v0 + math.sin(0.3 * phi) * v1) / math.sin(phi)
    np.testing.assert_allclose(made.tensors[name], wanted, rtol=1e-4, atol=1e-5)


def test_same_bytes_for_any_number_of_threads_and_any_order(tmp_path: Path) -> None:
    one, two, four = on_1_2_and_4_threads(run, Params(weights={"expert_1": 2.0}), tmp_path)
    assert one == two == four


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"t": 1.5}, r"^t = 1.5: allowed are numbers from 0"),
        ({"t": [0, float("nan")]}, r"^t = \[0.0, nan\]: allowed are numbers"),
        ({"t": []}, r"^t = \[\]: allowed"),
        ({"t": [0, 0]}, "t = 0 everywhere: the result would be the origin"),
        ({"space": "changes"}, "space = 'changes' needs `origin`"),
        ({"overrides": [{"match": "w", "params": {"t": -1}}]}, r"overrides\[0\].params: t = -1.0: allowed"),
        ({"overrides": [{"match": "w", "params": {"space": "changes"}}]}, r"overrides\[0\].params: space = 'changes' needs"),
        ({"overrides": [{"match": "w", "params": {"origin": "a"}}]}, r"overrides\[0\].params.origin: this cannot differ"),
        ({"weights": {"a": [1, -1]}}, r"weights.a = \[1.0, -1.0\]: shares of an arc are not negative"),
    ],
)
def test_params_without_sense_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check(Params(**params))


@pytest.mark.parametrize(
    ("params", "labels", "message"),
    [
        ({"origin": "expert1"}, ["expert_1", "expert_2"], "no expert 'expert1'. Did you mean 'expert_1'"),
        ({"origin": "a"}, ["a"], "origin = 'a' is the only expert"),
        ({"origin": "a", "weights": {"a": 2}}, ["a", "b", "c"], "weights.a: the origin's share is 1 - t. Allowed: weights of b, c"),
        ({"weights": {"a": 2}}, ["a"], "weights say nothing for two models"),
        ({"origin": "a", "overrides": [{"match": "w", "weights": {"b": 2}}]}, ["a", "b"], "weights say nothing for two models"),
    ],
)
def test_experts_that_do_not_fit_are_refused(params: dict[str, Any], labels: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check_experts(Params(**params), labels)


def test_a_run_refuses_before_it_reads(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="origin: no expert 'x'"):
        outcome(run, Inputs(tmp_path, {"a": tmp_path, "b": tmp_path}), Params(origin="x"), tmp_path / "m")


def test_weights_of_a_tensor_that_are_all_0_are_refused() -> None:
    with pytest.raises(BadInput, match=r"slerp: the weights for tensor 'x' sum to 0"):
        blend(formula(Params()), [1, 0], [[0, 1], [1, 1]], [0, 0], name="x")
