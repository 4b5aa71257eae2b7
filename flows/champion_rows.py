"""The champion beside the models of a run: since when, from which commit, and how good it was when it was evaluated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flows.ledger import Ledger, champion_of, champions
from flows.records import Records
from tasks.contract.params import StageFailed
from tasks.engine.plan import Plan

Row = dict[str, Any]


def champion_rows(plan: Plan, candidate: str) -> list[Row]:
    """As `champions_now`, each with evaluate as well: world -> figures on the test problems of its own evaluation, {} for the candidate
    and where they are not at hand."""
    records = Records(plan.store, plan.settings.road)
    return [row if row.keys() == {"unknown"} else _with_figures(plan, records, row) for row in champions_now(plan, candidate)]


def champions_now(plan: Plan, candidate: str) -> list[Row]:
    """The registry's champion by the ledger, and where that is the run's own candidate, the one before it as well; [] without one.

    candidate: identity of the run's candidate, or "". Each has version, model (its name in the registry), identity, when (it became
    champion, UTC), commit, decision (its identity), and own: whether it is the candidate. A ledger that cannot be read gives one row
    that says so, as `unknown`.
    """
    try:
        entries = Ledger.of(plan).entries()
    except StageFailed as error:
        return [{"unknown": str(error)}]
    now = champion_of(entries)
    if now is None:
        return []
    own = now["identity"] == candidate
    before = [one for one in champions(entries) if one["version"] != now["version"]][-1:] if own else []
    kept = ("version", "model", "identity", "when", "commit", "decision")
    return [{**{name: str(one.get(name) or "") for name in kept}, "own": one["identity"] == candidate} for one in (now, *before)]


def _with_figures(plan: Plan, records: Records, row: Row) -> Row:
    return {**row, "evaluate": {} if row["own"] else _evaluated(plan, records, row)}


def _evaluated(plan: Plan, records: Records, row: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of a champion: of the evaluation that its decision read, or of another one that played it as the candidate."""
    road = plan.settings.road
    decided = records.of(row["decision"], road.decision)
    readers = [one["identity"] for one in records.readers(row["identity"]) if one["parts"]["stage"] == road.judged]
    for identity in [*([decided["parts"]["inputs"].get(road.judged, "")] if decided else []), *readers]:
        file = plan.store.view(identity) / "metrics.json" if identity and plan.store.has(identity) else None
        if file is not None and file.is_file():
            metrics = json.loads(file.read_text(encoding="utf-8"))
            name = (metrics.get("gate") or {}).get("candidate") or road[road.candidate].checkpoint()
            blocks = (metrics.get("evaluate") or {}).get(name, {})
            if blocks:
                return {world: {key: one for key, one in block.items() if key.startswith("pass_")} for world, block in blocks.items()}
    return {}
