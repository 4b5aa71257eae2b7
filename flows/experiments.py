"""`cairn experiments`: DVC's experiments in the columns that a person chose, and the same as a chart.

`dvc exp show` has a column for every param and every figure, hundreds of them. Here a row has the headline of its evaluation and the
params in which the experiments differ, or what the person names. The chart has an axis a column and a line an experiment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from flows.dvc_command import busy, dvc
from tasks.contract.params import BadInput, StageFailed, nearest
from tasks.engine.dotted import leaves
from tasks.engine.files import write_text
from tasks.engine.param_files import PIPELINE

CHART = "reports/experiments.html"
PAGE = ".dvc/plots.html"
HEADLINE = "headline"


@dataclass(frozen=True)
class Experiment:
    """name: DVC's, a branch, or "workspace". created: date and time, "" for the workspace. headline, figures (of every model) and
    params: by dotted name."""

    name: str
    created: str
    headline: Mapping[str, Any]
    figures: Mapping[str, Any]
    params: Mapping[str, Any]

    def value(self, column: str) -> Any:
        """What stands in a column; None where it has nothing there."""
        return next((part[column] for part in (self.headline, self.figures, self.params) if column in part), None)


def read(project: Path, everywhere: bool = False) -> list[Experiment]:
    """The workspace, HEAD and its experiments, as DVC knows them; everywhere: those of all commits. StageFailed when DVC refuses."""
    answer = dvc(project, "exp", "show", "--json", *(["--all-commits"] if everywhere else []))
    if answer.returncode:
        raise StageFailed(f"DVC shows no experiments: {busy(project, answer.stderr or answer.stdout)}")
    found = []
    for baseline in json.loads(answer.stdout):
        saved = [state for group in baseline.get("experiments") or () for state in (group.get("revs") or ())]
        found += [_experiment(state) for state in (baseline, *saved) if state.get("data")]
    return found


def _experiment(state: Mapping[str, Any]) -> Experiment:
    data = state["data"]
    headline: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    for path, about in data["metrics"].items():
        name = PurePosixPath(path).stem
        into, before = (headline, "") if name == HEADLINE else (figures, name)
        into.update(leaves(about.get("data") or {}, before))
    params = leaves((data["params"].get(PIPELINE) or {}).get("data") or {})
    return Experiment(state.get("name") or state["rev"][:9], str(data.get("timestamp") or "")[:16], headline, figures, dict(params))


def choose(found: Sequence[Experiment], named: Sequence[str]) -> list[str]:
    """The columns to show: those that were named, or else all of the headline and every param in which two rows differ. BadInput for a
    name that no row has."""
    known = list(dict.fromkeys(name for one in found for part in (one.headline, one.figures, one.params) for name in part))
    for name in named:
        if name not in known:
            raise BadInput(f"--column {name}: no experiment has it.{nearest(name, known)}")
    if named:
        return list(named)
    params = dict.fromkeys(name for one in found for name in one.params)
    differing = [name for name in params if len({json.dumps(one.value(name)) for one in found}) > 1]
    return [*dict.fromkeys(name for one in found for name in one.headline), *differing]


def lines(found: Sequence[Experiment], columns: Sequence[str]) -> list[str]:
    """The table as text, a row an experiment."""
    rows = [["experiment", "created", *columns]]
    rows += [[one.name, one.created, *(_text(one.value(column)) for column in columns)] for one in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _text(value: Any) -> str:
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value)


# --- the chart -------------------------------------------------------------------------------------------------------


def draw(project: Path, found: Sequence[Experiment], columns: Sequence[str]) -> str:
    """Write the chart, parallel coordinates, in DVC's page with the libraries inside; returns a line that says where it is, or why
    there is none."""
    if len(found) < 2 or len(columns) < 2:
        return "no chart: it needs two experiments and two columns"
    spec = json.dumps(chart(found, columns)).replace("</", "<\\/")
    body = f"<div id=\"experiments\"></div>\n<script>vegaEmbed('#experiments', {spec});</script>"
    page = (project / PAGE).read_text(encoding="utf-8").replace("{refresh_tag}", "")
    (project / CHART).parent.mkdir(exist_ok=True)
    write_text(project / CHART, page.replace("{plot_divs}", body))
    return f"chart: {CHART}"


def chart(found: Sequence[Experiment], columns: Sequence[str]) -> dict[str, Any]:
    """Parallel coordinates in Vega-Lite: each column from its least value (below) to its greatest, or through its words in order."""
    points, marks = [], []
    for column in columns:
        there = [one for one in found if one.value(column) is not None]
        places, labelled = _axis([one.value(column) for one in there])
        marks += [{"column": column, "place": places[text], "value": text} for text in labelled]
        texts = [(one.name, _text(one.value(column))) for one in there]
        points += [{"experiment": name, "column": column, "place": places[text], "value": text} for name, text in texts]
    x = {"field": "column", "type": "nominal", "sort": None, "title": None, "axis": {"labelAngle": -30, "grid": True}}
    y = {"field": "place", "type": "quantitative", "axis": None, "scale": {"domain": [0, 1]}}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "title": "experiments: a line each",
        "width": {"step": 110},
        "height": 360,
        "layer": [
            {
                "data": {"values": points},
                "mark": {"type": "line", "point": True, "tooltip": {"content": "data"}},
                "encoding": {"x": x, "y": y, "color": {"field": "experiment", "type": "nominal", "sort": None}},
            },
            {
                "data": {"values": marks},
                "mark": {"type": "text", "align": "left", "dx": 6, "dy": -6, "fontSize": 10},
                "encoding": {"x": x, "y": y, "text": {"field": "value"}},
            },
        ],
    }


def _axis(values: Sequence[Any]) -> tuple[dict[str, float], list[str]]:
    """(value as text -> how high it stands, 0 to 1; which of them are labelled: the ends of numbers, every word). A value that is alone
    stands in the middle."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    distinct = sorted({_text(value): value for value in values}.items(), key=lambda one: one[1] if numbers else one[0])
    texts = [text for text, _ in distinct]
    if len(distinct) < 2:
        return dict.fromkeys(texts, 0.5), texts
    if not numbers:
        return {text: place / (len(texts) - 1) for place, text in enumerate(texts)}, texts
    low, span = distinct[0][1], distinct[-1][1] - distinct[0][1] or 1
    return {text: (value - low) / span for text, value in distinct}, [texts[0], texts[-1]]
