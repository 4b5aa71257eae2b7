"""TIES-Merging by hand, at its limits, against its definition, on files, and on input that must be refused.

Worked examples, weights 1:
    nothing trimmed   d1 = [3, -1], d2 = [-1, -3]: sums 2, -4; + and - win; [3, (-1 - 3) / 2] = [3, -2].
    keep 0.5          d1 = [4, 1, -2, .5] -> [4, 0, -2, 0], d2 = [-3, 2, -4, .1] -> [-3, 0, -4, 0]; sums 1, 0, -6, 0;
                      agreeing [4, -, (-2 - 4) / 2, -] = [4, 0, -3, 0]; b lost one entry.
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
from tasks.merge.ties import Params, check, formula, run
from tests.merge.folders import family
from tests.merge.formulas import blend, f32, stats
from tests.merge.runs import arithmetic, changes_of, normals, on_1_2_and_4_threads, outcome

SMOKE = {"keep": 0.3, "alpha": 0.5}


def test_worked_example_of_the_election() -> None:
    merged, masked = blend(formula(Params(keep=1)), [0, 0], [[3, -1], [-1, -3]])
    np.testing.assert_array_equal(merged, [3, -2])
    np.testing.assert_array_equal(masked, [[3, -1], [0, -3]])


def test_worked_example_with_trimming() -> None:
    given = [[4, 1, -2, 0.5], [-3, 2, -4, 0.1]]
    merged, masked = blend(formula(Params(keep=0.5, alpha=0.5)), [0, 0, 0, 0], given)
    np.testing.assert_array_equal(merged, [2, 0, -1.5, 0])
    np.testing.assert_array_equal(masked, [[4, 0, -2, 0], [0, 0, -4, 0]])
    a, b = stats(formula(Params(keep=0.5)), [0, 0, 0, 0], given)
    assert (a["outvoted_n"], b["outvoted_n"], a["thr_lo"], b["thr_lo"]) == (0, 1, 2.0, 3.0)


def test_one_expert_untrimmed_is_task_arithmetic_bit_for_bit() -> None:
    (change,) = normals(0, 1)
    merged, _ = blend(formula(Params(keep=1, alpha=0.7)), np.zeros((40, 30)), [change])
    assert merged.tobytes() == arithmetic([change], [1], 0.7).tobytes()


def test_one_expert_is_breadcrumbs_without_a_trimmed_top_bit_for_bit() -> None:
    (change,) = normals(1, 1)
    merged, masked = blend(formula(Params(keep=0.2, alpha=0.7)), np.zeros((40, 30)), [change])
    same, left = blend(breadcrumbs.formula(breadcrumbs.Params(keep=0.2, trim_top=0, alpha=0.7)), np.zeros((40, 30)), [change])
    np.testing.assert_array_equal(merged, same)
    np.testing.assert_array_equal(masked, left)
    assert np.count_nonzero(masked) == 240


@given(
    changes=st.lists(st.lists(st.integers(-5, 5), min_size=10, max_size=10), min_size=1, max_size=4),
    keep=st.integers(1, 10),
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=4, max_size=4),
)
@settings(max_examples=120, deadline=None)
def test_against_the_definition(changes: list[list[int]], keep: int, weights: list[float]) -> None:
    """Trim, elect and average in plain Python."""
    weights = weights[: len(changes)]
    trimmed = []
    for change in changes:
        order = sorted(range(10), key=lambda i, change=change: (-abs(change[i]), i))  # type: ignore[misc]
        trimmed.append([change[i] if i in order[:keep] else 0 for i in range(10)])
    wanted = []
    for entries in zip(*trimmed, strict=True):
        votes = sum(weight * entry for weight, entry in zip(weights, entries, strict=True))
        winners = [(weight, entry) for weight, entry in zip(weights, entries, strict=True) if entry * votes > 0]
        wanted.append(sum(w * d for w, d in winners) / sum(w for w, _ in winners) if winners else 0.0)
    merged, _ = blend(formula(Params(keep=keep / 10)), [0.0] * 10, changes, weights)
    np.testing.assert_array_equal(merged, f32(wanted))


def test_a_mean_lies_between_the_changes() -> None:
    changes = normals(2, 4)
    merged, _ = blend(formula(Params(keep=0.6)), np.zeros((40, 30)), changes)
    assert (merged <= np.max([*changes, np.zeros((40, 30))], axis=0) + 1e-6).all()
    assert (merged >= np.min([*changes, np.zeros((40, 30))], axis=0) - 1e-6).all()


def test_no_change_stays_no_change() -> None:
    base = normals(3, 1)[0]
    merged, _ = blend(formula(Params()), base, [np.zeros_like(base)] * 3)
    assert (base + merged).tobytes() == base.tobytes()


def test_a_scalar_is_kept_whole_and_a_small_tensor_keeps_its_share() -> None:
    assert blend(formula(Params(keep=0.2)), 0.0, [2.0, 4.0])[0] == 3
    merged, _ = blend(formula(Params(keep=0.2)), np.zeros(64), normals(4, 1, (64,)))
    assert np.count_nonzero(merged) == 13


def test_overrides_and_ways_to_elect_reach_the_formula() -> None:
    params = Params(keep=0.5, overrides=[{"match": "norm", "params": {"keep": 1, "elect": "count", "alpha": 2}}])
    given = [[5, 1], [-1, 3], [-1, 3]]
    np.testing.assert_array_equal(blend(formula(params), [0, 0], given, name="w")[0], [5, 3])
    np.testing.assert_array_equal(blend(formula(params), [0, 0], given, name="norm")[0], [-2, f32(7) / f32(3) * 2])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weights": {"a": float("inf")}}, "weights.a = inf"),
        ({"overrides": [{"match": "norm", "params": {"keep": 2}}]}, r"overrides\[0\] \('norm'\): keep = 2"),
        ({"overrides": [{"match": "norm", "params": {"kep": 1}}]}, "unknown key 'kep'. Did you mean 'keep'"),
        ({"overrides": [{"match": "(", "params": {}}]}, "is no regular expression"),
        ({"keep": 0}, "keep = 0: .* Allowed: float > 0 and <= 1"),
        ({"elect": "sum"}, "elect = 'sum'"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check(validate(Params, values, "params"))


def test_keeping_everything_is_allowed_since_the_election_acts() -> None:
    check(Params(keep=1))
    assert blend(formula(Params(keep=1)), [0], [[2], [-1]])[0] == 2


def test_a_run_with_weights(tmp_path: Path) -> None:
    base, experts = family(tmp_path)
    params = Params(keep=0.3, alpha=0.5, weights={"expert_1": 3.0})
    found = outcome(run, Inputs(base, experts), params, tmp_path / "run")
    plain = outcome(run, Inputs(base, experts), Params(keep=0.3, alpha=0.5), tmp_path / "plain")
    for name, (theta, changes) in changes_of(base, experts).items():
        merged, masked = blend(formula(params), theta, changes, [1, 3], name)
        np.testing.assert_array_equal(found.tensors[name], theta + merged)
        rows = [row for row in found.rows if row["tensor"] == name]
        assert [row["kept_n"] for row in rows] == [np.count_nonzero(one) for one in masked]
    assert found.digests["model/model.safetensors"] != plain.digests["model/model.safetensors"]
    matrix = next(row for row in found.rows if row["tensor"] == "model.layers.0.mlp.weight")
    assert matrix["kept_n"] + matrix["outvoted_n"] == round(0.3 * 300 * 257) and matrix["outvoted_n"] > 0


def test_same_bytes_for_any_number_of_threads_and_any_order(tmp_path: Path) -> None:
    one, two, four = on_1_2_and_4_threads(run, Params(keep=0.3), tmp_path)
    assert one == two == four
