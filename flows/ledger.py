"""The ledger of promotions (`.cairn/promotions.jsonl`): which version was champion before, who moved the alias, when and why.

MLflow keeps no history of an alias. Whom decisions meet hangs on the ledger, so a damaged line stops everything that reads it.
"""

from __future__ import annotations

import getpass
import json
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.contract.params import StageFailed, brief
from tasks.engine.files import write_text

ALIAS = "champion"
"""The registry's alias that the ledger is about."""
LEDGER = "promotions.jsonl"


def ledger(state: Path) -> list[dict[str, Any]]:
    """Everything that ever happened to the alias, oldest first. StageFailed for a damaged line: whom decisions meet hangs on it."""
    path, entries = state / LEDGER, []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else (), 1):
        if not line.strip():
            continue
        if not (entry := read_entry(line)):
            raise StageFailed(
                f"{path}, line {number}, is no entry of the ledger of promotions: {brief(line)}. Nothing was changed. Put the file "
                "back from a backup, or delete that line; the registry's versions keep who was promoted, and from which artifact."
            )
        entries.append(entry)
    return entries


def read_entry(text: str) -> dict[str, Any] | None:
    """An entry of the ledger, or of a move that has begun; None for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    wanted = ("event",) if found.get("event") == "forget" else ("event", "version", "identity", "model")
    return found if all(isinstance(found.get(name), str) for name in wanted) else None


def champion(state: Path) -> dict[str, Any] | None:
    """The ledger's last word on who is champion; None before the first promotion and after `cairn champion --none`."""
    entries = ledger(state)
    return entries[-1] if entries and entries[-1]["event"] != "forget" else None


def champions(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The champions that a rollback can go back along, the present one (or the last one there was) at the end.

    A version that was rolled back is gone from it: going back twice goes back two champions. `--none` takes nothing away.
    """
    stack: list[Mapping[str, Any]] = []
    for entry in entries:
        if entry["event"] == "rollback":
            known = [number for number, one in enumerate(stack) if one["version"] == entry["version"]]
            stack = [*(stack[: known[-1]] if known else stack), entry]
        elif entry["event"] == "promote":
            stack = [*(one for one in stack if one["version"] != entry["version"]), entry]
    return stack


def append(state: Path, entry: Mapping[str, Any]) -> None:
    """Write one entry at the end. For who holds the lock."""
    path = state / LEDGER
    old = path.read_text() if path.exists() else ""
    write_text(path, old + json.dumps(entry) + "\n")


def signed(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry with who writes it, when, and an id of its own."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {**entry, "who": _who(), "when": now, "id": uuid.uuid4().hex[:12]}


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
