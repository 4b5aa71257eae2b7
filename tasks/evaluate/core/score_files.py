"""Scores of models on problems of environments as files: scores.parquet, which holds all of them, and what is made of it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from tasks.evaluate.core.estimates import DIGITS, estimate
from tasks.evaluate.core.figure_files import FAMILIES, MODELS

Scores = Sequence[Mapping[str, Any]]
"""Rows of `schemas.SCORE`."""
RESAMPLES = 1000
"""Bootstrap samples of an interval; ours."""
MEANS = ("accuracy", "exact", "loss")


def write_scores(
    folder: Path, scores: Scores, candidate: str, seed: int, further: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """Write scores.parquet and its figures: metrics.json, metrics/<model>.yaml, headline.yaml, models.csv, families.csv.

    candidate: the model that headline.yaml speaks of. seed: of the intervals. further: other figures that the method made of the same
    scores. Returns what is in metrics.json: these, and means over problems by model and part.
    """
    from tasks.contract.schemas import SCORE
    from tasks.contract.tables import write_rows

    write_rows(folder / "scores.parquet", SCORE, scores)
    measured = {model: {part: _means(own) for part, own in _by(mine, "part").items()} for model, mine in _by(scores, "model").items()}
    said = {"scores": measured, **further}
    text = json.dumps(said, indent=2, sort_keys=True, allow_nan=False)
    (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
    overall = {model: _means(mine) for model, mine in _by(scores, "model").items()}
    (folder / "metrics").mkdir(exist_ok=True)
    for model, means in overall.items():
        _yaml(folder / "metrics" / f"{model}.yaml", means)
    first = next(iter(overall))
    gain = {} if first == candidate else {"gain": overall[candidate]["accuracy"] - overall[first]["accuracy"]}
    _yaml(folder / "headline.yaml", {"accuracy": overall[candidate]["accuracy"], **gain})
    _table(folder / "models.csv", MODELS, ({"model": model, **_interval(own, seed)} for model, own in _by(scores, "model").items()))
    _table(folder / "families.csv", FAMILIES, _families(scores, seed))
    return said


def _by(scores: Scores, column: str) -> dict[str, list[Mapping[str, Any]]]:
    """The rows of each value of a column, in the order of the first ones."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in scores:
        found.setdefault(str(row[column]), []).append(row)
    return found


def _means(scores: Scores) -> dict[str, float]:
    """Means over problems of what was measured, and how many problems and tokens (or steps) there were."""
    values = {name: [row[name] for row in scores if row[name] is not None] for name in MEANS}
    means = {name: round(float(np.mean(one)), DIGITS) for name, one in values.items() if one}
    return {**means, "problems": len(scores), "n": sum(row["n"] for row in scores)}


def _interval(scores: Scores, seed: int) -> dict[str, Any]:
    """Mean accuracy over problems with its 95 % interval, one trial each."""
    values = np.array([row["accuracy"] for row in scores], dtype=np.float64)
    limits = min(0.0, float(values.min())), max(1.0, float(values.max()))
    said = estimate([values], 1, seed=seed, resamples=RESAMPLES, limits=limits)
    return {"n": len(values), "trials": 1, **{name: said[name] for name in ("mean", "low", "high")}}


def _families(scores: Scores, seed: int) -> Iterable[dict[str, Any]]:
    for model, mine in _by(scores, "model").items():
        for environment, own in _by(mine, "environment").items():
            for family, rows in {"all": own, **_by(own, "family")}.items():
                yield {"model": model, "world": environment, "family": family, **_interval(rows, seed)}


def _yaml(path: Path, figures: Mapping[str, float]) -> None:
    path.write_text("".join(f"{name}: {json.dumps(round(value, DIGITS))}\n" for name, value in figures.items()), encoding="utf-8")


def _table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
