"""Recipes: one paper's own chain each, in plain Python, that measures the paper's claim in miniature for one seed.

A recipe is a module `flows/recipes/<slug>.py` (the slug of its paper) with TITLE, PAPER, SLUG, CLAIM, a class Params, and

    check(params)                                         BadInput for combinations that make no sense
    measure(seed, params, folder, progress) -> Measured   folder: empty, for checkpoints

It trains tiny models and calls the rooms' methods. A seed is one measurement: whoever wants to know whether the claim holds runs
several and compares the arms pair by pair.
"""

from __future__ import annotations

import importlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pyarrow as pa

from tasks.contract.params import BadInput, nearest, validate
from tasks.contract.tables import write_rows

HERE = Path(__file__).parent
ROWS, FIGURES = "rows.parquet", "measured.json"

Progress = Callable[[int, int, str], None]
"""progress(done, total, note), for people; the note's first word names the phase."""

EVALUATION = pa.schema(
    [
        ("recipe", pa.string()),
        ("seed", pa.int64()),
        ("part", pa.string()),
        ("arm", pa.string()),
        ("method", pa.string()),
        ("n_tasks", pa.int32()),
        ("subset", pa.string()),
        ("task", pa.string()),
        ("split", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("normalized", pa.float64()),
        ("alpha", pa.float64()),
        ("keep", pa.float64()),
        ("trim_top", pa.float64()),
        ("density", pa.float64()),
        ("t", pa.float64()),
        ("selected_at_n", pa.int32()),
        ("moved", pa.float64()),
        ("n", pa.int64()),
    ]
)
"""One measured number.

part: of the recipe (its header names them). arm: what was measured, as in the claim. method: of the merge room, or how the model was
trained. n_tasks, subset: how many task vectors are in the model, and of which tasks ("3+5"). task: what was asked. split: of the rows
it was asked on ("validation" where settings are chosen, else "test"). metric, value: for example accuracy, in [0, 1]. normalized: value
over what the recipe's header says. alpha, keep, trim_top, density, t: settings, null where there are none. selected_at_n: size of the
merges that the settings were chosen on. moved: L2 norm of the model's change from the base. n: predictions behind the value."""

REQUIRED = ("recipe", "seed", "part", "arm", "method", "n_tasks", "subset", "task", "split", "metric", "value", "n")
"""Columns that are never null."""


@dataclass(frozen=True)
class Control:
    """A comparison beside the claim. must_hold: if it fails, the experiment is broken, whatever the claim's interval says."""

    name: str
    treatment: str
    baseline: str
    metric: str
    direction: Literal["higher", "lower"]
    must_hold: bool


@dataclass(frozen=True)
class Claim:
    """What is to be shown, and so what may fail.

    metrics: the treatment must differ from the baseline in `direction` in all of them. baseline: an arm. nullable: the dossier says how
    it may come out null at this size; then the null is published with its interval.
    """

    statement: str
    metrics: tuple[str, ...]
    treatment: str
    baseline: str
    controls: tuple[Control, ...]
    direction: Literal["higher", "lower"]
    nullable: bool


@dataclass(frozen=True)
class Measured:
    """One seed. arms: arm -> metric -> value. rows: for EVALUATION. sound: what must be true of the trainings for the arms to mean
    anything, and whether it is. figures: what else a person wants to see, JSON-able."""

    arms: Mapping[str, Mapping[str, float]]
    rows: Sequence[Mapping[str, Any]]
    sound: Mapping[str, bool]
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """Treatment minus baseline in one metric. wanted: it has the sign that the claim or the control says."""

    name: str
    treatment: str
    baseline: str
    metric: str
    value: float
    wanted: bool


def names() -> tuple[str, ...]:
    """The recipes, sorted."""
    return tuple(sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_")))


def load(slug: str) -> ModuleType:
    """A recipe's module (cheap: torch is imported when it measures); BadInput with the known ones when there is none."""
    if slug not in names():
        raise BadInput(f"no recipe {slug!r}.{nearest(slug, names())} Known: {', '.join(names())}.")
    return importlib.import_module(f"flows.recipes.{slug}")


def measure(slug: str, seed: int, values: Mapping[str, Any], out: Path, progress: Progress) -> Measured:
    """Measure one seed and leave rows.parquet and measured.json in `out`; checkpoints lie there only meanwhile.

    values: what differs from the recipe's default params. Raises BadInput for params that it refuses, before anything is written.
    """
    recipe = load(slug)
    params = validate(recipe.Params, dict(values), f"recipe {slug}")
    recipe.check(params)
    if not 0 <= seed < 2**31:
        raise BadInput(f"recipe {slug}: seed = {seed}. Allowed: 0 to 2147483647.")
    if out.exists() and not out.is_dir():
        raise BadInput(f"recipe {slug}: {out} is a file; results go to a folder")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="work-", dir=out) as work:
        measured: Measured = recipe.measure(seed, params, Path(work), progress)
        rows = [{"recipe": slug, "seed": seed, **row} for row in measured.rows]
        _check(recipe.CLAIM, measured, rows)
        write_rows(Path(work) / ROWS, EVALUATION, rows)
        told = {
            "recipe": slug,
            "seed": seed,
            "params": params.model_dump(mode="json"),
            "arms": measured.arms,
            "differences": [asdict(one) for one in differences(recipe.CLAIM, measured)],
            "sound": measured.sound,
            "figures": measured.figures,
        }
        (Path(work) / FIGURES).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        for name in (ROWS, FIGURES):
            os.replace(Path(work) / name, out / name)
    return measured


def _check(claim: Claim, measured: Measured, rows: Sequence[Mapping[str, Any]]) -> None:
    """ValueError for a recipe that does not measure what its claim names, or leaves holes in its rows."""
    wanted = [(arm, metric) for metric in claim.metrics for arm in (claim.treatment, claim.baseline)]
    wanted += [(arm, one.metric) for one in claim.controls for arm in (one.treatment, one.baseline)]
    for arm, metric in wanted:
        if metric not in measured.arms.get(arm, {}):
            raise ValueError(f"the claim names {metric} of arm {arm!r}, which was not measured")
    for row in rows:
        for column in REQUIRED:
            if row.get(column) is None:
                raise ValueError(f"a row lacks {column!r}: {row}")


def differences(claim: Claim, measured: Measured) -> list[Difference]:
    """The claim's comparison in each of its metrics, then the controls'."""
    compared = [("claim", claim.treatment, claim.baseline, metric, claim.direction) for metric in claim.metrics]
    compared += [(one.name, one.treatment, one.baseline, one.metric, one.direction) for one in claim.controls]
    found = []
    for name, treatment, baseline, metric, direction in compared:
        value = measured.arms[treatment][metric] - measured.arms[baseline][metric]
        found.append(Difference(name, treatment, baseline, metric, value, value > 0 if direction == "higher" else value < 0))
    return found
