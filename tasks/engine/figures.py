"""What a person reads of a stage's figures in MLflow: a handful as metrics, those by family as a table, the results as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.worlds import UNSEEN

DEPTH = 2
"""Names of the path to a figure that is still a metric; what lies deeper (each expert's, each family's) is in figures.json; ours."""


def handful(figures: Mapping[str, Any]) -> list[tuple[str, float]]:
    """(name, value) of the figures that are shown as metrics: of an evaluation each model's pass^1 in each world, else those near the
    top."""
    if "evaluate" in figures:
        return [one for model in figures["evaluate"] for one in measured(figures, model)]
    return [(name, value) for name, value in numbers(figures, depth=DEPTH)]


def measured(metrics: Mapping[str, Any], model: str) -> Iterator[tuple[str, float]]:
    """(name, pass^1) of a model in each world; of those that no training saw under a name that says so; and of the one that was also
    played as it is served, its pass^1 there and the share of conversations that are the same token for token."""
    for mark, part in (("", metrics), (f"{UNSEEN}.", metrics.get(UNSEEN) or {})):
        for world, figures in part.get("evaluate", {}).get(model, {}).items():
            yield f"{model}.{mark}{world}.pass_1", figures["pass_1"]["mean"]
    served = metrics.get("as_served") or {}
    if served.get("candidate") == model:
        yield f"{model}.as_served.pass_1", served["as_served"]["mean"]
        yield f"{model}.as_served.alike", served["alike"] / served["conversations"]


def numbers(figures: Mapping[str, Any], prefix: str = "", depth: int | None = None) -> Iterator[tuple[str, float]]:
    """(dotted name, value) of every number in figures within figures, `depth` names deep at most."""
    for name, value in figures.items():
        if isinstance(value, Mapping) and depth != 1:
            yield from numbers(value, f"{prefix}{name}.", depth and depth - 1)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{prefix}{name}", float(value)


def families(figures: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation's pass^1 by family as a table of MLflow's ({columns, data}); {} without one."""
    columns = ("model", "world", "family", "pass_1", "low", "high", "n", "trials")
    data = [
        [model, f"{world}{mark}", family, *(block["pass_1"][name] for name in ("mean", "low", "high", "n", "trials"))]
        for mark, part in (("", figures), (f" ({UNSEEN})", figures.get(UNSEEN) or {}))
        for model, worlds in (part.get("evaluate") or {}).items()
        for world, one in worlds.items()
        for family, block in (one.get("families") or {}).items()
    ]
    return {"columns": list(columns), "data": data} if data else {}


def results(metrics: Mapping[str, Any]) -> str:
    """pass^1 of every model over all worlds, with its interval, in Markdown; "" when it is not known."""
    overall = {model: block["pass_1"] for model, block in (metrics.get("overall") or {}).items() if block.get("pass_1")}
    if not overall:
        return ""
    lines = ["| model | pass^1, all worlds | 95 % interval | n | trials |", "| --- | --- | --- | --- | --- |"]
    for model, one in overall.items():
        lines.append(f"| {model} | {one['mean']:.3f} | {one['low']:.3f} to {one['high']:.3f} | {one['n']} | {one['trials']} |")
    return "\n".join(lines)


def metric_name(text: str) -> str:
    """A name as MLflow allows one."""
    return "".join(letter if letter.isalnum() or letter in "_-./ " else "_" for letter in text)
