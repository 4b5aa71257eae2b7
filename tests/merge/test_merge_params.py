"""What every method can be told: weights and their curves over the layers, exceptions by tensor name, and what is refused.

Worked example (curves): five layers stand at 0, 1/4, 1/2, 3/4 and 1. The anchors [0, 1, 0] lie at 0, 1/2 and 1, so the layers get
0, 0.5, 1, 0.5, 0; a tensor of no layer stands in the middle and gets 1.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from tasks.contract.params import BadInput, validate
from tasks.merge.breadcrumbs import Params, check, formula
from tasks.merge.core.params import MergeParams, at, check_labels, check_merge, layer_positions, variants
from tests.merge.arithmetic import merged
from tests.merge.folders import save
from tests.merge.formulas import blend, f32

LAYERS = [f"model.layers.{number}.mlp.weight" for number in range(5)]
NAMES = ["model.embed_tokens.weight", *LAYERS, "model.norm.weight"]


def five(folder: Path, experts: tuple[str, ...] = ("a",)) -> tuple[Path, dict[str, Path]]:
    """A base of ones with five layers, and experts in which everything is one larger."""
    base = save(folder / "base", {name: np.ones((2, 3), np.float32) for name in NAMES})
    return base, {label: save(folder / label, {name: np.full((2, 3), 2, np.float32) for name in NAMES}) for label in experts}


def moved(folder: Path) -> dict[str, float]:
    """Tensor -> what was added to the base's ones."""
    found = load_file(folder / "model.safetensors")
    assert all(len(set(values.reshape(-1).tolist())) == 1 for values in found.values())
    return {name: float(values.reshape(-1)[0]) - 1 for name, values in found.items()}


@pytest.mark.parametrize(
    ("curve", "layers", "outside"),
    [
        (0.5, [0.5] * 5, 0.5),
        ([0.5], [0.5] * 5, 0.5),
        ([0.0, 1.0], [0, 0.25, 0.5, 0.75, 1], 0.5),
        ([0.0, 1.0, 0.0], [0, 0.5, 1, 0.5, 0], 1.0),
        ([1.0, 2.0, 3.0, 4.0, 6.0], [1, 2, 3, 4, 6], 3.0),
        ([0.0, 1.0, 0.0, 0.0, 0.0], [0, 1, 0, 0, 0], 0.0),
        ([1.0, 1.0, -1.0, -1.0], [1, 1, 0, -1, -1], 0.0),
    ],
)
def test_curves_by_hand(tmp_path: Path, curve: Any, layers: list[float], outside: float) -> None:
    base, experts = five(tmp_path)
    report = merged(base, experts, tmp_path / "m", weights={"a": curve})
    found = moved(tmp_path / "m")
    assert [found[name] for name in LAYERS] == pytest.approx(layers)
    assert found["model.embed_tokens.weight"] == found["model.norm.weight"] == pytest.approx(outside)
    assert {row["tensor"]: row["weight"] for row in report.rows} == pytest.approx(found), "the report says it"


@given(anchors=st.lists(st.floats(-10, 10), min_size=1, max_size=6), position=st.floats(0, 1))
def test_a_curve_is_the_one_numpy_draws(anchors: list[float], position: float) -> None:
    places = np.linspace(0, 1, len(anchors)) if len(anchors) > 1 else np.zeros(1)
    assert at(anchors, position) == pytest.approx(float(np.interp(position, places, anchors)), abs=1e-9)
    assert at(anchors, 0.0) == anchors[0] and at(anchors, 1.0) == anchors[-1]


def test_layers_are_found_in_the_names_of_several_architectures() -> None:
    found = layer_positions(["h.0.attn.weight", "transformer.h.4.ln.bias", "wte.weight", "model.layers.1.experts.7.weight"])
    assert found == {"h.0.attn.weight": 0, "transformer.h.4.ln.bias": 1, "wte.weight": 0.5, "model.layers.1.experts.7.weight": 0.25}
    assert layer_positions(["layers.0.w", "norm"]) == {"layers.0.w": 0.5, "norm": 0.5}, "one layer is no curve"


def test_the_first_override_that_matches_counts(tmp_path: Path) -> None:
    """Layer 0 by the first, layers 1 and 2 by the second, all other layers by the third; the rest by the weights themselves."""
    base, experts = five(tmp_path, ("a", "b"))
    overrides = [
        {"match": r"\.0\.", "weights": {"a": 0.25}},
        {"match": r"\.[012]\.", "exclude": True},
        {"match": "layers", "weights": {"a": 4.0, "b": [0.0, 4.0]}},
    ]
    merged(base, experts, tmp_path / "m", weights={"a": 3.0}, overrides=overrides)
    found = moved(tmp_path / "m")
    assert [found[name] for name in LAYERS] == [0.25 + 1, 0, 0, 4 + 3, 4 + 4], (
        "an override leaves what it does not name: b is 1 in the first"
    )
    assert found["model.norm.weight"] == 3 + 1


def test_an_override_that_says_nothing_shields_from_those_behind_it(tmp_path: Path) -> None:
    base, experts = five(tmp_path)
    merged(base, experts, tmp_path / "m", overrides=[{"match": "norm"}, {"match": "", "exclude": True}])
    assert moved(tmp_path / "m") == dict.fromkeys(NAMES, 0.0) | {"model.norm.weight": 1.0}


def test_excluded_tensors_are_the_bases_byte_for_byte_and_are_not_reported(tmp_path: Path) -> None:
    base, experts = five(tmp_path)
    report = merged(base, experts, tmp_path / "m", overrides=[{"match": "embed|norm", "exclude": True}])
    assert sorted({row["tensor"] for row in report.rows}) == LAYERS
    assert (report.tensors, report.copied) == (7, 2)
    start, found = load_file(base / "model.safetensors"), load_file(tmp_path / "m/model.safetensors")
    assert found["model.norm.weight"].tobytes() == start["model.norm.weight"].tobytes()


def test_params_of_a_pattern_reach_the_formula() -> None:
    """Of ten entries 5 are kept, 2 where the name has an x, all of them where it is a norm."""
    overrides = [{"match": "x", "params": {"keep": 0.2}}, {"match": "norm", "params": {"keep": 1.0, "alpha": 2.0}}]
    params = Params(keep=0.5, trim_top=0.0, alpha=1.0, overrides=overrides)
    check(params)
    change = f32(range(1, 11))
    for name, kept, alpha in (("w", 5, 1), ("x.norm", 2, 1), ("norm", 10, 2)):
        added, (left,) = blend(formula(params), np.zeros(10), [change], name=name)
        assert np.count_nonzero(left) == kept, name
        np.testing.assert_array_equal(added, alpha * left)


def test_params_of_a_pattern_in_a_whole_merge(tmp_path: Path) -> None:
    base, experts = five(tmp_path)
    own = Params(keep=0.5, trim_top=0.0, alpha=1.0, overrides=[{"match": r"layers\.[34]", "params": {"keep": 1.0}}])
    report = merged(base, experts, tmp_path / "m", formula(own))
    assert [row["kept_n"] for row in report.rows] == [3, 3, 3, 3, 6, 6, 3]


def test_variants_name_their_place() -> None:
    params = Params(overrides=[{"match": "a", "params": {"keep": 0.5}}, {"match": "b"}, {"match": "c", "params": {"alpha": 1.0}}])
    assert [(where, own.keep, own.alpha) for where, own in variants(params)] == [
        ("", 0.15, 0.4),
        ("overrides[0]: ", 0.5, 0.4),
        ("overrides[2]: ", 0.15, 1.0),
    ]


def test_a_limit_of_infinity_goes_with_overrides() -> None:
    params = Params(max_relative_delta=math.inf, overrides=[{"match": "w", "params": {"keep": 0.5}}])
    check(params)
    assert params.at("w").keep == 0.5 and params.at("v") is params


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weights": {"a": math.nan}}, r"^weights.a = nan: allowed are finite numbers, or a list of them"),
        ({"weights": {"a": [1.0, math.inf]}}, r"^weights.a = \[1.0, inf\]"),
        ({"weights": {"a": []}}, r"^weights.a = \[\]"),
        ({"overrides": [{"match": "w", "weights": {"a": -math.inf}}]}, r"^overrides\[0\].weights.a = -inf"),
        ({"overrides": [{"match": "w"}, {"match": "(w"}]}, r"^overrides\[1\].match = '\(w' is no regular expression: missing \)"),
        ({"overrides": [{"match": "w", "params": {"tokenizer": "union"}}]}, r"^overrides\[0\].params.tokenizer: this cannot differ"),
        ({"overrides": [{"match": "w", "params": {"overrides": []}}]}, r"^overrides\[0\].params.overrides: this cannot differ"),
        ({"overrides": [{"match": "w", "params": {"weights": {}}}]}, r"^overrides\[0\].params.weights: this cannot differ"),
        (
            {"overrides": [{"match": "w", "params": {"kep": 0.5}}]},
            r"^overrides\[0\] \('w'\): unknown key 'kep'. Did you mean 'keep'",
        ),
        (
            {"overrides": [{"match": "w", "params": {"keep": 7}}]},
            r"^overrides\[0\] \('w'\): keep = 7: .* Allowed: float > 0 and <= 1",
        ),
    ],
)
def test_params_that_make_no_sense_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check_merge(Params(**given))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weights": {"one": "much"}}, "p: weights.one.*much"),
        ({"overrides": [{"match": "w", "exclud": True}]}, "p: unknown key 'overrides.0.exclud'"),
        ({"max_relative_delta": 0}, "p: max_relative_delta = 0"),
        ({"tokenizer": "mine"}, "p: tokenizer = 'mine'"),
        ({"max_shard_bytes": 0}, "p: max_shard_bytes = 0"),
    ],
)
def test_values_of_the_wrong_kind_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        validate(MergeParams, given, "p")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weights": {"alice": 1.0}}, r"m: weights: no expert 'alice'. Did you mean 'alicia'\? Experts: alicia, bob"),
        ({"overrides": [{"match": "norm", "weights": {"bobb": 1.0}}]}, r"m: weights: no expert 'bobb'. Did you mean 'bob'"),
        (
            {"weights": {"alicia": 0.0, "bob": [0.0, 0.0]}},
            "m: every weight is 0 or every tensor excluded: the result would be the base",
        ),
        ({"overrides": [{"match": "", "exclude": True}]}, "m: every weight is 0 or every tensor excluded"),
        (
            {"weights": {"alicia": 0.0, "bob": 0.0}, "overrides": [{"match": "norm", "exclude": True, "weights": {"bob": 1.0}}]},
            "m: every weight is 0 or every tensor excluded",
        ),
        (
            {"overrides": [{"match": "nrom"}]},
            r"m: overrides\[0\].match = 'nrom' matches no tensor, for example not 'model.embed_tokens",
        ),
    ],
)
def test_names_that_are_not_there_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check_labels("m", MergeParams(**given), ["alicia", "bob"], NAMES)


@pytest.mark.parametrize(
    "given",
    [
        {"weights": {"alicia": 0.0}},
        {"weights": {"alicia": [0.0, 1.0, 0.0, 0.0, 0.0], "bob": 0.0}},
        {"weights": {"alicia": 0.0, "bob": 0.0}, "overrides": [{"match": "norm", "weights": {"bob": 1.0}}]},
    ],
)
def test_one_weight_somewhere_is_enough(given: dict[str, Any]) -> None:
    check_labels("m", MergeParams(**given), ["alicia", "bob"], NAMES)
