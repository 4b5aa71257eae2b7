"""The breadcrumbs recipe at toy size: fair selection, frozen settings, the planted control, and input that must be refused.

By hand: alphas 0.25 and 1 with three tails give breadcrumbs and TIES 6 settings each, and task arithmetic 6 alphas, 0.15 apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows import recipes
from flows.recipes import breadcrumbs as recipe
from flows.recipes.ground import training
from flows.recipes.ground.merging import Bench
from tasks.contract.params import BadInput
from tasks.merge import breadcrumbs as method
from tests.recipes.toys import check_left, measure, quiet, same

TOY = {
    "width": 32, "layers": 1, "symbols": 7, "base_tasks": 4, "new_tasks": 3, "validation_tasks": 3, "base_steps": 120, "base_batch": 64,
    "tune_steps": 60, "tune_rate": 1e-3, "subsets": 2, "validation_rows": 8, "test_rows": 16,
    "alphas": [0.5, 1.0], "tails": [(0.5, 0.01), (0.9, 0.05)], "densities": [0.2, 0.8],
}  # fmt: skip
LEARNS = {
    **TOY,
    "width": 64,
    "symbols": 11,
    "base_tasks": 8,
    "validation_tasks": 2,
    "base_steps": 150,
    "tune_rate": 3e-4,
    "test_rows": 32,
}

Run = tuple[Path, recipes.Measured, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One seed of the toy: folder, what was returned, rows."""
    out = tmp_path_factory.mktemp("breadcrumbs")
    return out, *measure("breadcrumbs", 1, TOY, out)


def test_it_leaves_all_arms_and_complete_rows(run: Run) -> None:
    check_left("breadcrumbs", 1, *run)
    _, measured, rows = run
    parts = {"base", "finetuned", "selection", "report", "equal_norm", "retuned", "planted"}
    assert {row["part"] for row in rows} == parts
    assert {len(curve) for curve in measured.figures["normalized_by_size"].values()} == {3}
    assert "regret" in measured.arms["ties"]


def test_the_same_seed_gives_the_same_bytes(run: Run, tmp_path: Path) -> None:
    measure("breadcrumbs", 1, TOY, tmp_path)
    assert same(run[0], tmp_path)


def test_every_method_chooses_among_as_many_settings_on_tasks_that_are_not_reported(run: Run) -> None:
    rows = [row for row in run[2] if row["part"] == "selection"]
    for arm in ("breadcrumbs", "task_arithmetic", "ties"):
        own = [row for row in rows if row["arm"] == arm]
        assert len({(row["alpha"], row["keep"], row["trim_top"]) for row in own}) == 4
        assert {row["n_tasks"] for row in own} == {2} and {row["split"] for row in own} == {"validation"}
    chosen_on = {task for row in rows for task in row["subset"].split("+")}
    reported = {task for row in run[2] if row["part"] == "report" for task in row["subset"].split("+")}
    assert chosen_on and reported and not chosen_on & reported


def test_settings_are_frozen_and_the_best_of_the_selection(run: Run) -> None:
    _, measured, rows = run
    for arm in ("breadcrumbs", "task_arithmetic", "ties"):
        frozen = measured.figures["chosen"][arm]
        report = [row for row in rows if row["part"] == "report" and row["arm"] == arm]
        assert {row["n_tasks"] for row in report} == {1, 2, 3} and {row["selected_at_n"] for row in report} == {2}
        assert all(row[key] == value for row in report for key, value in frozen.items())
        worth: dict[tuple[float | None, ...], list[float]] = {}
        for row in rows:
            if row["part"] == "selection" and row["arm"] == arm:
                worth.setdefault((row["alpha"], row["keep"], row["trim_top"]), []).append(row["normalized"])
        best = max(worth, key=lambda setting: sum(worth[setting]))
        assert best == (frozen["alpha"], frozen.get("keep"), frozen.get("trim_top"))


def test_the_claims_number_is_the_mean_over_the_tasks_of_the_whole_merge(run: Run) -> None:
    _, measured, rows = run
    own = {row["task"]: row["value"] for row in rows if row["part"] == "finetuned"}
    whole = [row for row in rows if row["part"] == "report" and row["arm"] == "ties" and row["n_tasks"] == 3]
    mean = sum(row["value"] / own[row["task"]] for row in whole) / 3
    assert len(whole) == 3 and measured.arms["ties"]["normalized"] == pytest.approx(mean)


def test_equal_norm_moves_as_far_as_breadcrumbs(run: Run) -> None:
    far = {row["subset"]: row["moved"] for row in run[2] if row["part"] == "report" and row["arm"] == "breadcrumbs"}
    own = {row["subset"]: row["moved"] for row in run[2] if row["part"] == "equal_norm"}
    assert own.keys() == far.keys()
    assert all(own[subset] == pytest.approx(far[subset], rel=1e-3) for subset in far)


def test_regret_is_a_difference_of_two_tried_settings(run: Run) -> None:
    rows = [row for row in run[2] if row["part"] == "retuned" and row["arm"] == "breadcrumbs"]
    assert {row["split"] for row in rows} == {"validation", "test"} and {row["selected_at_n"] for row in rows} == {3}
    tried: dict[tuple[float, ...], dict[str, float]] = {}
    for row in rows:
        sums = tried.setdefault((row["alpha"], row["keep"], row["trim_top"]), {"validation": 0.0, "test": 0.0})
        sums[row["split"]] += row["normalized"] / 3
    carried = run[1].figures["chosen"]["breadcrumbs"]
    anew = max(tried.values(), key=lambda one: one["validation"])
    wanted = anew["test"] - tried[carried["alpha"], carried["keep"], carried["trim_top"]]["test"]
    assert run[1].arms["breadcrumbs"]["regret"] == pytest.approx(wanted)


@pytest.mark.long
def test_where_outliers_are_planted_trimming_helps(tmp_path: Path) -> None:
    measured, _ = measure("breadcrumbs", 0, LEARNS, tmp_path)
    assert all(measured.sound.values())
    gain = measured.arms["planted_trimmed"]["normalized"] - measured.arms["planted_untrimmed"]["normalized"]
    assert gain > 0.05  # 0.10 to 0.21 over four seeds


def test_planted_entries_are_what_trimming_removes(tmp_path: Path) -> None:
    """alpha 1, one task: the merge is the fine-tuned model with the planted places back at the base."""
    import torch

    model = training.tiny_model(20, layers=1, width=32, seed=0)
    base = training.weights_of(model)
    tuned = {name: tensor + 0.01 * torch.randn(tensor.shape, generator=training.generator(name)) for name, tensor in base.items()}
    spoiled = recipe.plant(base, tuned, 0.01, 30.0, training.generator("planted"))
    for name, folder in ((base, "base"), (spoiled, "spoiled")):
        training.save_weights(model, name, tmp_path / folder)
    bench = Bench(tmp_path / "base", tmp_path / "merges", seed=0)
    merged, _ = bench.merge(method, {"alpha": 1.0, "keep": 0.99, "trim_top": 0.01}, {"one": tmp_path / "spoiled"})
    for name, tensor in tuned.items():
        hit = spoiled[name] != base[name] + (tensor - base[name])
        largest = (tensor - base[name]).abs().max()
        assert int(hit.sum()) == tensor.numel() // 100  # a norm of 32 entries: none
        torch.testing.assert_close((spoiled[name] - base[name])[hit].abs(), (30 * largest).expand(int(hit.sum())))
        torch.testing.assert_close(merged[name], torch.where(hit, base[name], tensor))


def test_every_method_gets_as_many_settings() -> None:
    params = recipe.Params(alphas=[0.25, 1.0], tails=[(0.1, 0.01), (0.5, 0.01), (0.9, 0.01)], densities=[0.1, 0.2, 0.5])
    crumbs, arithmetic, elected = recipe.arms(params)
    assert [len(arm.settings) for arm in (crumbs, arithmetic, elected)] == [6, 6, 6]
    assert [setting["alpha"] for setting in arithmetic.settings] == pytest.approx([0.25, 0.4, 0.55, 0.7, 0.85, 1.0])
    assert crumbs.settings[1] == {"alpha": 0.25, "keep": 0.5, "trim_top": 0.01}
    assert elected.settings[-1] == {"alpha": 1.0, "keep": 0.5}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tails": [(0.5, 0.01)]}, "1 tails and 4 densities: every method must get as many settings"),
        ({"alphas": [0.5, 0.5]}, "task arithmetic would get one setting"),
        ({"tails": [(1.0, 0.0)], "densities": [0.2]}, "keep = 1 with trim_top = 0 removes nothing"),
        ({"tails": [(0.9, 0.2)], "densities": [0.2]}, "add up to more than 1"),
        ({"alphas": [0.5, -1.0]}, r"alpha = -1.0: .* Allowed: float > 0"),
        ({"densities": [0.1, 0.2, 0.5, 1.5]}, r"keep = 1.5: .* Allowed: float > 0 and <= 1"),
        ({"new_tasks": 1}, r"recipe breadcrumbs: new_tasks = 1: .* Allowed: whole number >= 2"),
        ({"wide": 64}, r"unknown key 'wide'. Did you mean 'width'\?"),
    ],
)
def test_bad_params_are_refused_before_anything_is_written(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message):
        recipes.measure("breadcrumbs", 0, values, tmp_path / "out", quiet)
    assert not (tmp_path / "out").exists()


def test_tasks_that_were_not_learned_cannot_be_merged(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"0 of the new tasks gained 0\.2 .* Raise tune_steps or tune_rate \(now 1, 1e-05\)"):
        measure("breadcrumbs", 0, {**TOY, "base_steps": 1, "tune_steps": 1, "tune_rate": 1e-5}, tmp_path)
