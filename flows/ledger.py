"""The ledger of promotions: which version was champion before, who moved the alias, when and why. MLflow keeps no history of an alias.

It lies in `.cairn/promotions.db`, or in the Postgres database that `promote.ledger` names. Whom decisions meet hangs on it, so a
damaged one stops everything that reads it.
"""

from __future__ import annotations

import getpass
import os
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.ledger_database import Database, Record, read_entry
from tasks.contract.params import StageFailed, brief

if TYPE_CHECKING:
    from tasks.engine.plan import Plan

ALIAS = "champion"
"""The registry's alias that the ledger is about."""
RECORD = "cairn.record"
"""The tag of a version that names the ledger's record of it: whoever takes records off the end of the ledger is found out by it."""
OWN = "promotions.db"
LINES = "promotions.jsonl"
"""Where earlier versions of Cairn wrote the ledger, a line for each entry."""


@dataclass(frozen=True)
class Ledger:
    """state: the state root. url: of a Postgres database; empty: a file of its own below the state root."""

    state: Path
    url: str = ""

    @classmethod
    def of(cls, plan: Plan) -> Ledger:
        """The ledger that a plan's params name."""
        return cls(plan.store.state, plan.settings.shared.promote.ledger)

    @property
    def database(self) -> Database:
        """Where it lies."""
        return Database(self.url or self.state / OWN)

    def records(self) -> list[Record]:
        """Everything that ever happened to the alias, oldest first, numbered. StageFailed for a ledger that is damaged or not there."""
        self._take_over()
        return self.database.read()

    def entries(self) -> list[dict[str, Any]]:
        """Everything that ever happened to the alias, oldest first. StageFailed as `records`."""
        return [record.entry for record in self.records()]

    def champion(self) -> dict[str, Any] | None:
        """The last word on who is champion; None before the first promotion and after `cairn champion --none`."""
        return champion_of(self.entries())

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write one entry at the end."""
        self._take_over()
        self.database.append([entry])

    def last_record(self) -> str:
        """The last record as the tag RECORD has it: hash of the first one, number, hash."""
        records = self.records()
        return f"{records[0].hash} {records[-1].number} {records[-1].hash}"

    def check_end(self, tag: str) -> None:
        """StageFailed when a record of this ledger, of which a version of the registry has the tag RECORD, is not there."""
        records = self.records()
        first, number, last = tag.split() if len(tag.split()) == 3 and records else ("", "0", "")
        if records and first == records[0].hash and last not in {record.hash for record in records}:
            raise self.database.damaged(f"record {number} is missing, which the registry's champion carries as a tag")

    def _take_over(self) -> None:
        """Move the records of where the ledger lay before: the file of an earlier version, and with `url` the project's own one."""
        for old in (self.state / LINES, *([self.state / OWN] if self.url else ())):
            with suppress(FileNotFoundError):  # another process was faster
                if old.exists():
                    self._move(old, lines_of(old) if old.name == LINES else [record.entry for record in Database(old).read()])

    def _move(self, old: Path, entries: Sequence[Mapping[str, Any]]) -> None:
        self.database.append(entries, only_first=True)
        there = [record.entry for record in self.database.read()]
        if not all(entry in there for entry in entries):
            raise StageFailed(
                f"{old} has records that the ledger of promotions, {self.database}, does not have, which began without them. "
                "Nothing was changed. Move that file away to go on with the ledger there."
            )
        os.replace(old, moved := old.with_name(f"{old.name}.moved"))
        print(f"cairn: the ledger's {len(entries)} records are in {self.database} now; {moved} is not read any more", file=sys.stderr)


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The entries of an earlier version's file. StageFailed for a damaged line: whom decisions meet hangs on it."""
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        if not (entry := read_entry(line)):
            raise StageFailed(
                f"{path}, line {number}, is no entry of the ledger of promotions: {brief(line)}. Nothing was changed. Put the file "
                "back from a backup, or delete that line; the registry's versions keep who was promoted, and from which artifact."
            )
        entries.append(entry)
    return entries


def champion_of(entries: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The last word of a ledger's entries on who is champion."""
    return entries[-1] if entries and entries[-1]["event"] != "forget" else None


def champions(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The champions that a rollback can go back along, the present one (or the last one there was) at the end.

    A version that was rolled back is gone from it: going back twice goes back two champions. `--none` takes nothing away.
    """
    stack: list[Mapping[str, Any]] = []
    for entry in entries:
        if entry["event"] in ("rollback", "adopt"):
            known = [number for number, one in enumerate(stack) if one["version"] == entry["version"]]
            stack = [*(stack[: known[-1]] if known else stack), entry]
        elif entry["event"] == "promote":
            stack = [*(one for one in stack if one["version"] != entry["version"]), entry]
    return stack


def anchor(entries: Sequence[Mapping[str, Any]]) -> str | None:
    """Identity of the best champion so far: the last one that was shown to be better than the best before it (`best`), the first one
    at the beginning. One that was rolled back is none any more, and `--none` begins anew. Before entries said `best`, each champion
    had been shown to be better than the one before."""
    forgotten = max((number for number, one in enumerate(entries) if one["event"] == "forget"), default=-1)
    since = entries[forgotten + 1 :]
    best = {one["identity"]: one.get("best", True) for one in since if one["event"] == "promote"}
    found = None
    for one in champions(since):
        found = one["identity"] if found is None or best.get(one["identity"], False) else found
    return found


def signed(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry with who writes it, when, and an id of its own."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {**entry, "who": _who(), "when": now, "id": uuid.uuid4().hex[:12]}


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
