"""The report's sections on what the run was: its stages, what they cost, and who played the roles."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flows.report.charts import Bar, bars, short
from flows.report.reading import Folders, Summary, duration, read_columns
from flows.report.talks import clean
from tasks.contract import schemas
from tasks.engine import methods
from tasks.engine.dotted import leaves
from tasks.road import ROAD, Road

MOST_FIGURES = 40
"""Figures of one stage that are shown; ours: the rest stands in summary.json."""


def stages(summary: Summary, road: Road = ROAD) -> list[dict[str, Any]]:
    """One line a stage: method with title and paper, seconds, cached or ran, identity, and its figures."""
    lines = []
    for stage, entry in sorted((summary.get("stages") or {}).items(), key=lambda item: road.index(item[0])):
        method = entry.get("method") or ""
        header = methods.header(road[stage].room, method) if method in methods.names(road[stage].room) else None
        figures = [] if road[stage].room == "evaluate" else [(name, _text(value)) for name, value in leaves(entry.get("figures") or {})]
        lines.append(
            {
                "stage": stage,
                "method": method,
                "title": header.title if header else "",
                "paper": header.paper if header else "",
                "seconds": entry.get("seconds"),
                "cached": entry.get("cached"),
                "artifact": str(entry.get("artifact") or ""),
                "figures": figures[:MOST_FIGURES],
                "more": max(0, len(figures) - MOST_FIGURES),
            }
        )
    return lines


def _text(value: Any) -> str:
    if value is None or value == [] or value == "":
        return "\u2013"
    return f"{value:.6g}" if isinstance(value, float) else clean(str(value))[:200]


def cost(summary: Summary, folders: Folders, road: Road = ROAD) -> dict[str, Any]:
    """Seconds and tokens by stage. Tokens are those that models produced in conversations, or that a training counted."""
    entries = {stage: summary["stages"][stage] for stage in road.names if stage in (summary.get("stages") or {})}
    seconds = [
        Bar(
            stage,
            entry["seconds"],
            duration(entry["seconds"]),
            f"{stage}: {duration(entry['seconds'])}",
            "idle" if entry["cached"] else "count",
        )
        for stage, entry in entries.items()
        if entry.get("seconds") is not None
    ]
    tokens = []
    for stage, name, schema in _conversations(road).values():
        table = read_columns(folders, stage, name, schema, "n_tokens")
        if table is not None and (total := pc.sum(table["n_tokens"]).as_py()):
            tokens.append(Bar(f"{stage}: produced", total, short(total), f"{total:,} tokens in {table.num_rows:,} conversations"))
    for stage, entry in entries.items():
        for name, total in _tokens(entry.get("figures") or {}).items():
            tokens.append(Bar(f"{stage}: {name}", total, short(total), f"{total:,} tokens"))
    return {
        "seconds": bars(seconds, "seconds by stage") if seconds else "",
        "tokens": bars(tokens, "tokens by stage") if tokens else "",
        "total": math.fsum(bar.value for bar in seconds),
        "played": {name: _played(folders, *place) for name, place in _conversations(road).items() if place[0] in folders},
    }


def _conversations(road: Road) -> dict[str, tuple[str, str, pa.Schema]]:
    """What became of conversations -> the step that played them, its file and schema."""
    generate = next(iter(road.entering("generate")), "")
    return {
        "generated": (generate, "trajectories.parquet", schemas.TRAJECTORY),
        "evaluated": (road.judged, "trials.parquet", schemas.TRIAL),
    }


def _played(folders: Folders, stage: str, name: str, schema: pa.Schema) -> int:
    table = read_columns(folders, stage, name, schema, "reward")
    return table.num_rows if table is not None else 0


def _tokens(figures: Mapping[str, Any]) -> dict[str, int]:
    """Whole numbers of tokens among a stage's figures, summed over its units (worlds); longest ones add up to nothing."""
    found: Counter[str] = Counter()
    for name, value in figures.items():
        if isinstance(value, Mapping):
            found.update(_tokens(value))
        elif isinstance(value, int) and "tokens" in name and not {"per", "max"} & {*name.split("_")}:
            found[name.replace("tokens_", "").replace("_", " ")] += value
    return dict(found)


def roles(summary: Summary, folders: Folders, road: Road = ROAD) -> dict[str, Any]:
    """Who played the roles: names found in the rows, and what their generator says of its errors."""
    names: set[str] = set()
    for stage, name, schema in _conversations(road).values():
        table = read_columns(folders, stage, name, schema, "human", "agent")
        if table is not None:
            names |= set(pc.unique(table["human"]).to_pylist())
            names |= {agent for agent in pc.unique(table["agent"]).to_pylist() if agent.startswith("scripted")}
    for stage in road.entering("generate"):
        if (table := read_columns(folders, stage, "blueprints.parquet", schemas.BLUEPRINT, "generator")) is not None:
            names |= set(pc.unique(table["generator"]).to_pylist())
    params = {name: role for name, role in (summary.get("roles") or {}).items() if isinstance(role, Mapping)}
    scripted = any(name.startswith("scripted") for name in names)
    return {"names": sorted(names), "params": params, "scripted": scripted, "seed": summary.get("seed")}
