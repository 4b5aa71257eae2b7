"""The LT-SFT recipe at toy size: one cut over all matrices, entries that stand still, the same budget for every arm.

By hand: of a = [1, 5, 2] and b = [[4, 5], [0, 5]] together, density 3/7 selects three entries: the three fives, one in a, two in b. With
density 2/7 only two of the equal fives fit, and the first by name and place win: a's and b's upper one.
Two differences [1, 0, 2, -1] and [3, 1, -2, 0]: supports {0, 2, 3} and {0, 1, 2} share two of three entries, and disagree on one of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows import recipes
from flows.recipes import lt_sft as recipe
from tasks.contract.params import BadInput
from tests.recipes.toys import check_left, measure, quiet, same

TOY = {
    "width": 32, "layers": 1, "symbols": 7, "old_tasks": 4, "base_steps": 60, "full_steps": 30, "sparse_steps": 40, "rate": 3e-3,
    "sparse_rate": 3e-3, "density": 0.1, "sweep": [0.3], "test_rows": 16,
}  # fmt: skip
LEARNS = {**TOY, "width": 64, "symbols": 11, "base_steps": 150, "full_steps": 80, "sparse_steps": 80, "rate": 1e-3, "sparse_rate": 1e-3}

Run = tuple[Path, recipes.Measured, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One seed of the toy: folder, what was returned, rows."""
    out = tmp_path_factory.mktemp("lt_sft")
    return out, *measure("lt_sft", 5, TOY, out)


def test_it_leaves_all_arms_and_complete_rows(run: Run) -> None:
    check_left("lt_sft", 5, *run)
    _, measured, rows = run
    assert set(measured.arms) == {"lt_sft", "dense", "random_mask", "dense_long"}
    assert {row["part"] for row in rows} == {"base", "alone", "composed"}
    composed = [row for row in rows if row["part"] == "composed"]
    assert {(row["arm"], row["density"], row["method"]) for row in composed} == {
        ("dense", None, "task_arithmetic"),
        ("dense_long", None, "task_arithmetic"),
        *((arm, density, "sparse_compose") for arm in ("lt_sft", "random_mask") for density in (0.1, 0.3)),
    }
    assert {row["task"] for row in composed} == {str(task) for task in range(6)}
    assert set(measured.figures["by_density"]) == {"0.1", "0.3"}
    assert measured.figures["by_density"]["0.1"]["lt_sft"] == measured.arms["lt_sft"]


def test_the_same_seed_gives_the_same_bytes(run: Run, tmp_path: Path) -> None:
    measure("lt_sft", 5, TOY, tmp_path)
    assert same(run[0], tmp_path)


def test_the_metrics_are_means_over_new_and_old_tasks(run: Run) -> None:
    _, measured, rows = run
    values = {row["task"]: row["value"] for row in rows if (row["part"], row["arm"]) == ("composed", "dense")}
    assert measured.arms["dense"]["new"] == pytest.approx((values["4"] + values["5"]) / 2)
    assert measured.arms["dense"]["old"] == pytest.approx(sum(values[str(task)] for task in range(4)) / 4)


def test_selection_is_global_and_exact() -> None:
    import torch

    worth = {"b": torch.tensor([[4.0, 5.0], [0.0, 5.0]]), "a": torch.tensor([1.0, 5.0, 2.0])}
    three = recipe.top(worth, 3 / 7)
    assert three["a"].tolist() == [0, 1, 0] and three["b"].tolist() == [[0, 1], [0, 1]]
    two = recipe.top(worth, 2 / 7)
    assert two["a"].tolist() == [0, 1, 0] and two["b"].tolist() == [[0, 1], [0, 0]]


def test_overlap_by_hand() -> None:
    import torch

    first, second = {"w": torch.tensor([1.0, 0, 2, -1])}, {"w": torch.tensor([3.0, 1, -2, 0])}
    assert recipe.overlap([first, second]) == {"support_overlap": pytest.approx(2 / 3), "sign_conflict": 0.5}


def test_only_selected_entries_move_and_norms_never_do(tmp_path: Path) -> None:
    lab = recipe.Lab(0, recipe.Params(**TOY), tmp_path, quiet)
    lab.train_base()
    (dense, _) = lab.dense("dense", 20)
    assert lab.maskable.count("model.embed_tokens.weight") == 1 and "lm_head.weight" not in lab.maskable
    entries = sum(lab.start[name].numel() for name in lab.maskable)
    masks = [lab.selected(dense, 0.05), lab.drawn(lab.new[1], 0.05)]
    for mask, vector in zip(masks, lab.sparse("lt_sft", masks, 0.05), strict=True):
        assert sum(int(one.sum()) for one in mask.values()) == round(0.05 * entries)
        for name, change in vector.items():
            moved = change != 0
            assert not moved.any() if name not in mask else not (moved & (mask[name] == 0)).any(), name
        changed = sum(int((vector[name] != 0).sum()) for name in mask)
        assert changed > 0.9 * round(0.05 * entries)
    for name, change in dense.items():
        if name not in lab.maskable:
            assert not change.any(), name
    chosen = min(float(dense[name].abs()[masks[0][name] == 1].min()) for name in lab.maskable if masks[0][name].any())
    left = max(float(dense[name].abs()[masks[0][name] == 0].max()) for name in lab.maskable)
    assert chosen >= left


@pytest.mark.long
def test_sparse_sums_keep_more_of_the_old_tasks_than_dense_ones(tmp_path: Path) -> None:
    measured, _ = measure("lt_sft", 0, {**LEARNS, "sweep": []}, tmp_path)
    for arm in ("lt_sft", "random_mask"):
        assert measured.arms[arm]["old"] > measured.arms["dense"]["old"] + 0.15  # 0.36 and more over four seeds
    assert measured.sound["the base reaches 0.95 on its tasks"] and measured.sound["dense fine-tunings reach 0.95 alone"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sparse_steps": 100}, "sparse_steps = 100 is less than full_steps = 150"),
        ({"sweep": [0.05, 0.0]}, "sweep holds 0. Allowed: above 0, up to 0.5"),
        ({"sweep": [0.6]}, "sweep holds 0.6"),
        ({"density": 0.9}, r"recipe lt_sft: density = 0.9: .* Allowed: float > 0 and <= 0.5"),
    ],
)
def test_bad_params_are_refused_before_anything_is_written(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message):
        recipes.measure("lt_sft", 0, values, tmp_path / "out", quiet)
    assert not (tmp_path / "out").exists()
