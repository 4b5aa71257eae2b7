"""What the report's sections share: the words for numbers, the colours of models, and readers of artifacts."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from flows.model_names import is_control
from tasks.contract import tables
from tasks.road import ROAD, Road

Summary = Mapping[str, Any]
"""What reports/summary.json holds."""
Folders = Mapping[str, Path]
"""Stage -> folder of its artifact; any may be missing."""

COLOURS = 4
"""Colours that models take in turn; those of the first step in the rooms base, sft and merge have their own."""


def colours(models: Sequence[str], road: Road = ROAD) -> dict[str, str]:
    """CSS class of each model's colour, the same on the whole page."""
    own: dict[str, str] = {}
    for room, kind in (("base", "m-base"), ("sft", "m-sft"), ("merge", "m-merged")):
        own |= {road[name].checkpoint(): kind for name in road.entering(room)[:1]}
    own |= {model: "m-base" for model in models if is_control(model, models, road)}
    others = sorted(name for name in models if name not in own)
    return {**own, **{name: f"m-{index % COLOURS}" for index, name in enumerate(others)}}


def two(value: float | None) -> str:
    """A share with two digits; a dash for what is not known."""
    return "\u2013" if value is None else f"{value:.2f}".replace("-", "\u2212")


def duration(seconds: float | None) -> str:
    """Seconds as people say them.

    >>> duration(0.42), duration(75), duration(7380), duration(None)
    ('0.4 s', '1 min 15 s', '2 h 3 min', '\u2013')
    """
    if seconds is None:
        return "\u2013"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def certainty(estimate: Mapping[str, Any]) -> str:
    """n, trials and what the interval resamples: what every number must carry."""
    what, n, trials = estimate.get("resamples", "problems"), estimate["n"], estimate["trials"]
    return f"{two(estimate['low'])} to {two(estimate['high'])} (95 % interval, resamples {what}; n = {n}, {trials} trials)"


def mean_of(value: Any) -> float:
    """pass^1 of a baseline, given as a number, an estimate or a block of estimates."""
    return float(value if isinstance(value, int | float) else value.get("pass_1", value)["mean"])


def number(text: str | None) -> float | None:
    """A cell of a CSV as a finite number."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def read_csv(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV; none when the file is not there."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def read_json(folders: Folders, stage: str, name: str) -> dict[str, Any]:
    """A stage's JSON file; empty when it is not there."""
    path = folders[stage] / name if stage in folders else None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path is not None and path.exists() else {}
    return found


def read_columns(folders: Folders, stage: str, name: str, schema: pa.Schema, *columns: str) -> pa.Table | None:
    """Some columns of a stage's Parquet file, checked against its schema; None when it is not there."""
    path = folders[stage] / name if stage in folders else None
    if path is None or not path.exists():
        return None
    return tables.read_table(path, pa.schema([schema.field(column) for column in columns]))
