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
    """The registry's champion by the ledger, and where that is the run's own candidate, the one before it as well; [] without one.

    candidate: identity of the run's candidate, or "". Each has version, model (its name in the registry), identity, when (it became
    champion, UTC), commit, own (whether it is the candidate), and evaluate: world -> figures on the test problems of its own
    evaluation, {} where that is not at hand. A ledger that cannot be read gives one row that says so, as `unknown`.
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
    records = Records(plan.store, plan.settings.road)
    return [_row(plan, records, one, one["identity"] == candidate) for one in (now, *before)]


def _row(plan: Plan, records: Records, entry: Mapping[str, Any], own: bool) -> Row:
    kept = {name: str(entry.get(name) or "") for name in ("version", "model", "identity", "when", "commit")}
    return {**kept, "own": own, "evaluate": {} if own else _evaluated(plan, records, entry)}


def _evaluated(plan: Plan, records: Records, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of a champion: of the evaluation that its decision read, or of another one that played it as the candidate."""
    road = plan.settings.road
    decided = records.of(str(entry.get("decision")), road.decision)
    readers = [one["identity"] for one in records.readers(entry["identity"]) if one["parts"]["stage"] == road.judged]
    for identity in [*([decided["parts"]["inputs"].get(road.judged, "")] if decided else []), *readers]:
        file = plan.store.view(identity) / "metrics.json" if identity and plan.store.has(identity) else None
        if file is not None and file.is_file():
            metrics = json.loads(file.read_text(encoding="utf-8"))
            name = (metrics.get("gate") or {}).get("candidate") or road[road.candidate].checkpoint()
            blocks = (metrics.get("evaluate") or {}).get(name, {})
            if blocks:
                return {world: {key: one for key, one in block.items() if key.startswith("pass_")} for world, block in blocks.items()}
    return {}
