"""The domain recipe at toy size: who the parents are, which way t goes, what the worst axis is.

By hand: parents instruct {domain 0.2, instruct 0.8} and domain {domain 1.0, instruct 0.0}; a merge {domain 0.6, instruct 0.4}. Over the
better parent: 0.6 / 1.0 and 0.4 / 0.8, so worst is 0.5. s_mean = 0.6 - (0.2 + 1.0) / 2 = 0, s_max = 0.6 - 1.0 = -0.4.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows import recipes
from flows.recipes import domain_adaptation as recipe
from flows.recipes.ground import training
from tasks.contract.params import BadInput
from tests.recipes.toys import check_left, measure, quiet, same

TOY = {
    "width": 32, "general_facts": 16, "domain_facts": 4, "kinds": 6, "base_steps": 60, "instruct_steps": 30, "cpt_steps": 30,
    "sentences": 4, "batch": 16, "rate": 3e-3, "path": [0.5], "test_rows": 16,
}  # fmt: skip
LEARNS = {
    **TOY, "width": 64, "general_facts": 32, "domain_facts": 8, "kinds": 8, "base_steps": 200, "instruct_steps": 120, "cpt_steps": 60,
    "sentences": 6, "rate": 2e-3,
}  # fmt: skip

Run = tuple[Path, recipes.Measured, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One seed of the toy: folder, what was returned, rows."""
    out = tmp_path_factory.mktemp("domain")
    return out, *measure("domain_adaptation", 2, TOY, out)


def test_it_leaves_all_arms_and_complete_rows(run: Run) -> None:
    check_left("domain_adaptation", 2, *run)
    _, measured, rows = run
    merges = {"slerp", "linear", "slerp_changes"}
    assert set(measured.arms) == {
        "instruct", "domain", "better_parent", "base_domain", "base_better_parent", *merges, *(f"base_{name}" for name in merges),
    }  # fmt: skip
    nodes = {row["arm"]: row["method"] for row in rows if row["part"] == "node"}
    assert nodes == {
        "base": "from random weights",
        "instruct": "from base",
        "domain": "from instruct",
        "base_domain": "from base",
    }
    for part in ("node", "merge", "path"):
        own = [row for row in rows if row["part"] == part]
        assert {row["task"] for row in own} == set(recipe.SUITES) and {row["metric"] for row in own} == {"accuracy", "loss"}
    shares = measured.figures["slerp_fallback_share"]
    assert set(shares) == {"slerp", "slerp_changes", "base_slerp", "base_slerp_changes"}
    assert all(0 <= share <= 1 for share in shares.values())
    assert set(measured.figures["path_losses"]) == {"0.5"}


def test_the_same_seed_gives_the_same_bytes(run: Run, tmp_path: Path) -> None:
    measure("domain_adaptation", 2, TOY, tmp_path)
    assert same(run[0], tmp_path)


def test_metrics_by_hand() -> None:
    parents = {
        "instruct": {"domain": 0.2, "instruct": 0.8, "asked": 0.1, "general": 1.0},
        "domain": {"domain": 1.0, "instruct": 0.0, "asked": 0.0, "general": 0.5},
    }
    best = {"domain": 1.0, "instruct": 0.8, "asked": 0.1, "general": 1.0}
    merge = {"domain": 0.6, "instruct": 0.4, "asked": 0.3, "general": 0.9}
    found = recipe.Lab._metrics(merge, parents, best)
    assert found["worst"] == pytest.approx(0.5)
    assert (found["s_mean"], found["s_max"]) == (pytest.approx(0.0), pytest.approx(-0.4))
    assert found["asked"] == 0.3
    nothing = {suite: 0.0 for suite in recipe.SUITES}
    assert recipe.Lab._metrics(nothing, {"one": nothing}, nothing)["worst"] == 0.0


def test_the_better_parent_is_the_better_one_in_each_metric(run: Run) -> None:
    arms = run[1].arms
    for prefix, parents in (("", ("instruct", "domain")), ("base_", ("base_domain",))):
        for metric, value in arms[f"{prefix}better_parent"].items():
            assert value >= max(arms[name][metric] for name in parents)
    assert arms["better_parent"]["worst"] == max(arms[name]["worst"] for name in ("instruct", "domain"))


def test_the_parts_of_the_corpus_do_not_mix() -> None:
    lab = recipe.Lab(0, recipe.Params(**TOY), Path(), quiet)
    assert list(lab.unasked) == [0, 1, 2, 3] and list(lab.general) == list(range(16)) and list(lab.domain) == [16, 17, 18, 19]


def test_t_goes_from_the_instruct_model_to_the_domain_model(tmp_path: Path) -> None:
    """At t = 0.1 every way lies nearer to the instruct model, at 0.9 nearer to the domain model, by weights."""
    lab = recipe.Lab(0, recipe.Params(**TOY), tmp_path, quiet)
    lab.train()
    ends = {name: training.load_weights(tmp_path / name) for name in ("instruct", "domain")}
    experts = {name: tmp_path / name for name in ends}
    apart = training.distance(ends["instruct"], ends["domain"])
    for t, near in ((0.1, "instruct"), (0.9, "domain")):
        for way in recipe.ways(t):
            weights, _ = lab.bench.merge(way.method, way.settings, experts)
            assert training.distance(weights, ends[near]) < 0.3 * apart, (way.name, t)
        linear = next(way for way in recipe.ways(t) if way.name == "linear")
        weights, _ = lab.bench.merge(linear.method, linear.settings, experts)
        assert training.distance(weights, ends["instruct"]) == pytest.approx(t * apart, rel=1e-3)


@pytest.mark.long
def test_pre_training_on_the_domain_costs_the_format(tmp_path: Path) -> None:
    """What the recipe rests on, at a size that learns: each parent is good at one thing and has lost or never had the other."""
    measured, _ = measure("domain_adaptation", 0, LEARNS, tmp_path)
    assert all(measured.sound.values())
    assert measured.arms["instruct"]["domain"] < 0.3 and measured.arms["domain"]["instruct"] < 0.3
    assert measured.arms["domain"]["domain"] >= 0.95 and measured.arms["instruct"]["instruct"] >= 0.95


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"unasked": 0.01, "general_facts": 8}, "unasked = 0.01 of 8 general facts keeps 0 out of the questions"),
        ({"unasked": 0.99, "general_facts": 8}, "keeps 8 out of the questions. Allowed: at least one, and not all"),
        ({"path": [0.5, 1.0]}, "path holds 1. Allowed: between 0"),
        ({"t": 1.0}, r"recipe domain_adaptation: t = 1.0: .* Allowed: float > 0 and < 1"),
        ({"layers": 1}, r"layers = 1: .* Allowed: whole number >= 2 and <= 16"),
    ],
)
def test_bad_params_are_refused_before_anything_is_written(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message):
        recipes.measure("domain_adaptation", 0, values, tmp_path / "out", quiet)
    assert not (tmp_path / "out").exists()
