"""`cairn promotions`: the ledger's records in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flows.ledger_database import Record

_NOBODY = "no version"


def lines(records: Sequence[Record], place: str) -> Iterator[str]:
    """The records, oldest first, each with its evidence below it."""
    yield (
        f"{len(records)} record{'s' * (len(records) != 1)} in {place}, each proved by its hash"
        if records
        else f"no promotion yet ({place})"
    )
    for record in records:
        entry = record.entry
        yield ""
        yield f"{record.number}  {entry.get('when', '(no time)')}  {_what(entry)}, by {entry.get('who', '(nobody named)')}"
        for name, text in (("why", entry.get("reason")), ("approved", entry.get("approved")), ("evidence", _evidence(entry))):
            if text:
                yield f"   {name + ':':<10}{text}"


def _what(entry: Mapping[str, Any]) -> str:
    if entry["event"] == "forget":
        return "forgotten: decisions meet no champion"
    said = {"promote": "promoted", "rollback": "rolled back", "adopt": "adopted", "restore": "restored"}[entry["event"]]
    before = f"version {entry['previous']}" if entry.get("previous") else _NOBODY
    return f"{said}: {entry['model']} from {before} to version {entry['version']}"


def _evidence(entry: Mapping[str, Any]) -> str:
    """Which decision, of which model against which, by which gates, from which commit."""
    if not entry.get("decision"):
        return ""
    gates = ", ".join(f"{one['name']} {'holds' if one['passed'] else 'fails'}" for one in entry.get("evidence", {}).get("gates", ()))
    dirty = f" with changes to {', '.join(entry['dirty'])}" if entry.get("dirty") else ""
    commit = f", commit {entry['commit'][:10]}{dirty}" if entry.get("commit") else ""
    met = entry.get("against") or "no champion"
    return f"decision {entry['decision']} on {entry['identity']} against {met}{': ' if gates else ''}{gates}{commit}"
