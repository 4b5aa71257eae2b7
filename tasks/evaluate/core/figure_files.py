"""The figures of an evaluation as files: metrics.json, which holds all of them, and what DVC shows of it.

`dvc metrics show` prints a row a file and a column a figure, `dvc metrics diff` a row a figure that changed: so there is one small file
a model, and what a road is judged by at a glance stands in headline.yaml. The tables are for `dvc plots show`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.evaluate.core.tables import WRITE
from tasks.worlds import UNSEEN

MODELS = ("model", "n", "trials", "mean", "low", "high")
FAMILIES = ("model", "world", "family", *MODELS[1:])
HEADLINE = {
    "passed": "pass^1 of the candidate: share of the test problems' trials that it solved",
    "gain": "how much more that is than the first model of the road has",
    "worst": "its pass^1 in the family of problems where it is lowest",
    "gate": "at least how much better it is than the model it has to beat, on fresh problems: lower end of the 95 % interval",
    "unseen": "its pass^1 in worlds that no training saw",
}
"""What headline.yaml holds, as far as it was measured."""


def write_figures(folder: Path, measured: Mapping[str, Any], candidate: str) -> None:
    """Write metrics.json, models.csv, families.csv, unseen.csv (where there are unseen worlds), metrics/<model>.yaml and headline.yaml.

    measured: what `core/tables.metrics` made of the trials. candidate: the model that headline.yaml speaks of.
    """
    text = json.dumps(measured, indent=2, sort_keys=True, allow_nan=False)
    (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
    _write_csv(folder / "models.csv", MODELS, model_lines(measured))
    _write_csv(folder / "families.csv", FAMILIES, family_lines(measured))
    if UNSEEN in measured:
        _write_csv(folder / "unseen.csv", FAMILIES, family_lines(measured[UNSEEN]))
    (folder / "metrics").mkdir(exist_ok=True)
    for model in measured["evaluate"]:
        _write_yaml(folder / "metrics" / f"{model}.yaml", model_figures(measured["overall"][model]))
    _write_yaml(folder / "headline.yaml", headline(measured, candidate), HEADLINE)


def model_figures(overall: Mapping[str, Any]) -> dict[str, float | str]:
    """A model over all worlds: pass_1, its 95 % interval (over problems), pass_4 where there were enough trials, and how much was
    played: problems x trials."""
    first, fourth = overall["pass_1"], overall["pass_4"]
    return {
        "pass_1": round(first["mean"], 3),
        "interval": f"{first['low']:.2f}-{first['high']:.2f}",
        **({"pass_4": round(fourth["mean"], 3)} if fourth else {}),
        "n": f"{first['n']}x{first['trials']}",
    }


def headline(measured: Mapping[str, Any], candidate: str) -> dict[str, float]:
    """The figures that HEADLINE names, without those that were not measured (no other model, no gate, no unseen world)."""

    def passed(part: Mapping[str, Any], model: str) -> float:
        return float(part["overall"][model]["pass_1"]["mean"])

    first = next(iter(measured["evaluate"]))
    families = (block["families"] for block in measured["evaluate"][candidate].values())
    gap = measured["gate"].get("overall", {}).get("paired")
    found = {
        "passed": passed(measured, candidate),
        **({"gain": passed(measured, candidate) - passed(measured, first)} if first != candidate else {}),
        "worst": min(one["pass_1"]["mean"] for world in families for name, one in world.items() if name != WRITE),
        **({"gate": gap["pass_1"]["low"]} if gap else {}),
        **({"unseen": passed(measured[UNSEEN], candidate)} if UNSEEN in measured else {}),
    }
    return {name: round(value, 3) for name, value in found.items()}


def model_lines(measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """models.csv: pass^1 of every model and baseline over all worlds."""
    return [{"model": model, **block["pass_1"]} for model, block in measured["overall"].items()]


def family_lines(measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """families.csv: pass^1 of every model and baseline, by world and family; family "all" is the world as a whole."""
    sources = {model: dict(worlds) for model, worlds in measured["evaluate"].items()}
    for world, baselines in measured["baselines"].items():
        for name, block in baselines.items():
            sources.setdefault(name, {})[world] = block
    return [
        {"model": model, "world": world, "family": family, **part["pass_1"]}
        for model, worlds in sources.items()
        for world, block in worlds.items()
        for family, part in {"all": block, **block["families"]}.items()
    ]


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({column: row[column] for column in columns} for row in rows)


def _write_yaml(path: Path, figures: Mapping[str, float | str], about: Mapping[str, str] | None = None) -> None:
    """One figure a line; about: name -> what it is, as a comment."""
    lines = (f"{name}: {json.dumps(value)}{f'  # {about[name]}' if about else ''}\n" for name, value in figures.items())
    path.write_text("".join(lines), encoding="utf-8")
