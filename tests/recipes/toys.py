"""Recipes at toy sizes, and what all of them must leave behind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flows import recipes


def quiet(done: int, total: int, note: str) -> None:
    """A progress bar that nobody watches."""


def measure(slug: str, seed: int, values: Mapping[str, Any], out: Path) -> tuple[recipes.Measured, list[dict[str, Any]]]:
    """Measure, and read the rows back."""
    measured = recipes.measure(slug, seed, values, out, quiet)
    return measured, pq.read_table(out / recipes.ROWS).to_pylist()


def check_left(slug: str, seed: int, out: Path, measured: recipes.Measured, rows: list[dict[str, Any]]) -> None:
    """Complete rows, a figures file that agrees with what was returned, every arm of the claim, and no checkpoint."""
    claim = recipes.load(slug).CLAIM
    assert sorted(path.name for path in out.iterdir()) == sorted([recipes.ROWS, recipes.FIGURES])
    assert rows and all(row[column] is not None for row in rows for column in recipes.REQUIRED)
    assert {row["recipe"] for row in rows} == {slug} and {row["seed"] for row in rows} == {seed}
    assert all(0 <= row["value"] <= 1 for row in rows if row["metric"] == "accuracy")
    told = json.loads((out / recipes.FIGURES).read_text())
    assert told["arms"] == measured.arms and told["sound"] == measured.sound and told["figures"] == measured.figures
    for metric in claim.metrics:
        assert {claim.treatment, claim.baseline} <= {arm for arm, values in measured.arms.items() if metric in values}
    for control in claim.controls:
        assert {control.treatment, control.baseline} <= {arm for arm, values in measured.arms.items() if control.metric in values}


def same(one: Path, two: Path) -> bool:
    """Whether two runs left the same bytes."""
    return all((one / name).read_bytes() == (two / name).read_bytes() for name in (recipes.ROWS, recipes.FIGURES))
