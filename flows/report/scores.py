"""The report's sections on how good the models are: the decision, the ladder of pass^1, paired differences, families."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flows.model_names import is_step, place
from flows.report.charts import Interval, intervals
from flows.report.reading import Summary, certainty, mean_of, two
from tasks.contract.problem import PASSIVE
from tasks.road import ROAD, Road
from tasks.worlds import UNSEEN

STEP, LARGE = 0.05, 0.25
"""Between two lines of the scale of differences; and a difference that does not have to fit on it. Ours."""
_DECISIONS = {
    "promote": ("good", "Promoted"),
    "refuse": ("bad", "Not promoted"),
    "waiting": ("wait", "Waiting for approval"),
}


def headline(summary: Summary, decision: Mapping[str, Any], candidate: str, road: Road = ROAD) -> dict[str, Any]:
    """What was promoted or refused and why, its gates, and the candidate against the first model over all worlds."""
    promotion = summary.get("promotion") or {}
    verdict = promotion.get("decision") or decision.get("decision")
    mood, title = _DECISIONS.get(str(verdict), ("wait", str(verdict) if verdict else "No decision: the road ended before it"))
    if promotion.get("version"):
        title += f": {candidate}, version {promotion['version']}" + (f" ({promotion['alias']})" if promotion.get("alias") else "")
    overall = summary.get("overall") or {}
    best = (overall.get(candidate) or {}).get("pass_1")
    first = min(overall, key=lambda model: place(model, road), default="")
    gates = decision.get("gates") or []
    reason = str(promotion.get("reason") or decision.get("reason") or "")
    for gate in gates:  # the page lists them, each with its explanation
        explanation = str(gate.get("explanation") or "\0")
        reason = reason.replace(f"{gate['name']}: {explanation}", "").replace(explanation, "")
    return {
        "mood": mood,
        "title": title,
        "reason": " ".join(reason.split()),
        "gates": gates,
        "candidate": candidate,
        "pass_1": best,
        "pass_4": (overall.get(candidate) or {}).get("pass_4"),
        "base": (overall.get(first) or {}).get("pass_1"),
    }


def ladders(summary: Summary, models: Sequence[str], kinds: Mapping[str, str]) -> list[dict[str, Any]]:
    """pass^1 of every model, one chart a world, with the baselines as lines."""
    found = []
    for world in worlds_of(summary):
        blocks = {model: summary["evaluate"][model][world] for model in models}
        marks = [_rung(model, world, block, kinds[model]) for model, block in blocks.items()]
        for number, one in enumerate(summary.get("champions") or []):
            if figures := (one.get("evaluate") or {}).get(world):
                marks.append(_rung(f"{'former' if number else 'champion'} v{one['version']}", world, figures, "m-champion"))
        baselines = (summary.get("baselines") or {}).get(world, {})
        lines = {name.replace("_", "-"): mean_of(value) for name, value in baselines.items()}
        first = blocks[models[0]]["pass_1"]
        chart = intervals(marks, (0.0, 1.0), "share of problems solved", lines)
        found.append({"world": world, "chart": chart, "n": first["n"], "trials": first["trials"]})
    return found


def champion_table(summary: Summary, candidate: str) -> dict[str, Any]:
    """The champion, and the one before it where the candidate is it: since when, from which commit, pass^1 by world; {} without one."""
    worlds, rows = worlds_of(summary), []
    for number, one in enumerate(summary.get("champions") or []):
        if "unknown" in one:
            return {"worlds": [], "rows": [], "unknown": one["unknown"]}
        figures = summary["evaluate"].get(candidate, {}) if one["own"] else one["evaluate"]
        cells = [
            _cell(figures[world]["pass_1"], f"version {one['version']} in {world}") if world in figures else None for world in worlds
        ]
        who = "champion now" if number == 0 else "before it"
        since = one["when"].removesuffix("Z").replace("T", " ")
        rows.append({**one, "who": who, "since": since, "cells": cells, "name": candidate if one["own"] else ""})
    return {"worlds": worlds, "rows": rows, "unknown": ""} if rows else {}


def with_unseen(cards: Callable[[Summary], list[dict[str, Any]]], summary: Summary) -> list[dict[str, Any]]:
    """The cards of a summary, then those of the worlds that no training saw, each with `unseen` true."""
    apart = summary.get(UNSEEN)
    hidden = cards({**apart, "gate": summary.get("gate")}) if apart else []
    return [*({**card, UNSEEN: False} for card in cards(summary)), *({**card, UNSEEN: True} for card in hidden)]


def passive(summary: Summary, models: Sequence[str]) -> list[dict[str, Any]]:
    """World by world what the models do in problems that doing nothing solves: how many there are, and pass^1 of each."""
    figures = (summary.get(PASSIVE) or {}).get("evaluate", {})
    found = []
    for world in sorted({world for worlds in figures.values() for world in worlds}):
        cells = [{"model": model, **figures[model][world]["pass_1"]} for model in models if world in figures.get(model, {})]
        found.append({"world": world, "n": cells[0]["n"], "cells": cells})
    return found


def _rung(model: str, world: str, block: Mapping[str, Any], kind: str) -> Interval:
    one, four = block["pass_1"], block.get("pass_4")
    note = f"{model} in {world}: pass^1 {two(one['mean'])}, {certainty(one)}"
    note += f"; pass^4 {two(four['mean'])}, {certainty(four)}" if four else ""
    return Interval(model, kind, one["mean"], one["low"], one["high"], note, four["mean"] if four else None)


def worlds_of(summary: Summary) -> list[str]:
    """Every world that was evaluated, sorted."""
    return sorted({world for worlds in (summary.get("evaluate") or {}).values() for world in worlds})


def gains(summary: Summary, kinds: Mapping[str, str], road: Road = ROAD) -> list[dict[str, Any]]:
    """Paired differences along the road, one chart a world: each model against what it was made from, the candidate against the
    contender."""
    models, pairs = {*(summary.get("evaluate") or {})}, summary.get("paired") or {}
    ends = {pair: pair.partition("-") for pair in pairs}
    rivals = ((summary.get("gate") or {}).get("candidate"), "contender")
    steps = {
        pair: pairs[pair]
        for pair, (later, _, earlier) in ends.items()
        if is_step(later, earlier, models, road) or (later, earlier) == rivals
    }
    estimates = [worlds[world]["pass_1"] for worlds in steps.values() for world in worlds]
    if not estimates:
        return []
    limits = _limits(estimates)
    steps = dict(sorted(steps.items(), key=lambda item: (place(ends[item[0]][0], road), place(ends[item[0]][2], road))))
    found = []
    for world in worlds_of(summary):
        marks = [_gain(pair, world, worlds[world]["pass_1"], kinds) for pair, worlds in steps.items()]
        chart = intervals(marks, limits, f"difference of pass^1, a line for each {STEP:g}", signed=True, step=STEP)
        found.append({"world": world, "chart": chart, "n": estimates[0]["n"], "trials": estimates[0]["trials"]})
    return found


def _limits(estimates: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """The ends of the scale of differences, in whole STEPs: it holds the intervals of those that are not LARGE, which would look alike
    beside one of 0.6. Those beyond are drawn as arrows."""
    small = [one for one in estimates if abs(one["mean"]) < LARGE] or estimates
    low, high = min(-STEP, *(one["low"] for one in small)), max(STEP, *(one["high"] for one in small))
    return STEP * math.floor(low / STEP + 1e-9), STEP * math.ceil(high / STEP - 1e-9)


def _gain(pair: str, world: str, one: Mapping[str, Any], kinds: Mapping[str, str]) -> Interval:
    later, _, earlier = pair.partition("-")
    note = f"{later} minus {earlier} in {world}: {two(one['mean'])}, {certainty(one)}"
    return Interval(f"{later} \u2212 {earlier}", kinds.get(later, "count"), one["mean"], one["low"], one["high"], note)


def families(summary: Summary, models: Sequence[str]) -> list[dict[str, Any]]:
    """pass^1 by family and by what training never saw, one table a world; baselines stand at the right."""
    tables = []
    for world in worlds_of(summary):
        columns: dict[str, Any] = {model: summary["evaluate"][model][world] for model in models}
        baselines = (summary.get("baselines") or {}).get(world, {})
        columns |= {name: block for name, block in baselines.items() if isinstance(block, Mapping) and "families" in block}
        lines = [_line("all problems", "all", columns)]
        for group in ("families", "tags"):
            names = {name for block in columns.values() for name in block.get(group, {})}
            for name in sorted(names, key=lambda name: (name == "write", name)):
                lines.append(_line(name, group, {model: block.get(group, {}).get(name) for model, block in columns.items()}))
        trials = columns[models[0]]["pass_1"]["trials"]
        tables.append({"world": world, "columns": list(columns), "lines": lines, "trials": trials})
    return tables


def _line(name: str, group: str, blocks: Mapping[str, Any]) -> dict[str, Any]:
    """One line of a table of families: a cell, or None, for each model."""
    sizes = [block["pass_1"]["n"] for block in blocks.values() if block]
    cells = [_cell(block["pass_1"], f"{model}, {name}") if block else None for model, block in blocks.items()]
    return {"name": name.replace("_", " "), "group": group, "n": sizes[0], "cells": cells}


def _cell(one: Mapping[str, Any], note: str) -> dict[str, Any]:
    return {**{key: one[key] for key in ("mean", "low", "high")}, "note": f"{note}: pass^1 {two(one['mean'])}, {certainty(one)}"}
