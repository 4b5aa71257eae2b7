"""Where the ledger of promotions lies: one table of SQLite or Postgres. Each record has a hash over itself and over the one before, so
that a record which was changed, taken out or put in between is found whenever the ledger is read, and named.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tasks.contract.params import BadInput, StageFailed, brief
from tasks.engine.sqlite_files import is_locked

TABLE = "cairn_promotions"
PATIENCE = 4
"""Seconds that a database has to answer, and that one which another process locks is waited for; ours."""
BEFORE_THE_FIRST = "0" * 64
"""What the first record's hash is made over, as the hash of the one before."""
_KINDS = ("promote", "rollback", "adopt", "restore", "forget")


class NoLedger(BadInput):
    """The ledger's database is locked, or cannot be reached or opened. Nothing was changed."""


@dataclass(frozen=True)
class Record:
    """One line of the ledger. number: from 1 on. entry: what happened."""

    number: int
    hash: str
    entry: dict[str, Any]


class Database:
    """The table at a place: the path of an SQLite file (made by the first record), or the URL of a Postgres database.

    Every method raises in words: NoLedger when the database cannot be used now, StageFailed when it is not what was written.
    """

    def __init__(self, place: Path | str) -> None:
        self.place = place

    def __str__(self) -> str:
        return str(self.place)  # a URL without a password: params hold none

    def read(self) -> list[Record]:
        """All records, oldest first, each proved by its hash."""
        if isinstance(self.place, Path) and not self.place.exists():
            return []
        with self._transaction(writing=False) as database:
            there = database.execute(_THERE[isinstance(self.place, Path)]).fetchone()
            rows = database.execute(f"SELECT number, hash, record FROM {TABLE} ORDER BY number").fetchall() if there[0] else []
        return self._proved(rows)

    def append(self, entries: Sequence[Mapping[str, Any]], only_first: bool = False) -> None:
        """Write entries behind the last one, whoever else writes meanwhile. only_first: nothing where there are records already."""
        with self._transaction(writing=True) as database:
            database.execute(_MAKE)
            last = database.execute(f"SELECT number, hash FROM {TABLE} ORDER BY number DESC LIMIT 1").fetchone()
            if last and only_first:
                return
            number, before = last or (0, BEFORE_THE_FIRST)
            mark = "?" if isinstance(self.place, Path) else "%s"
            for place, entry in enumerate(entries, number + 1):
                text = json.dumps(entry, sort_keys=True)
                before = _hash(before, text)
                database.execute(f"INSERT INTO {TABLE} VALUES ({mark}, {mark}, {mark})", (place, before, text))

    def _proved(self, rows: Sequence[tuple[int, str, str]]) -> list[Record]:
        records: list[Record] = []
        for place, (number, said, text) in enumerate(rows, 1):
            if number != place:
                raise self.damaged(f"record {place} is missing")
            if _hash(records[-1].hash if records else BEFORE_THE_FIRST, text) != said:
                raise self.damaged(f"record {number} was changed, or one before it was replaced: {brief(text)}")
            entry = read_entry(text)
            if entry is None:
                raise self.damaged(f"record {number} is none of the ledger's: {brief(text)}")
            records.append(Record(number, said, entry))
        return records

    def damaged(self, what: str) -> StageFailed:
        """The exception that says what is wrong with the ledger, and what to do."""
        return StageFailed(
            f"the ledger of promotions, {self}: {what}. Nothing was changed. Put it back from a backup; or move it away, then "
            "params/champion.yaml says who is champion and the history begins anew (the registry's versions keep theirs as tags)."
        )

    @contextmanager
    def _transaction(self, writing: bool) -> Iterator[Any]:
        """A connection within one transaction; of those that write, one at a time."""
        try:
            database = self._connect(writing)
            try:
                yield database
                database.execute("COMMIT")
            finally:
                database.close()  # takes back what was not committed
        except sqlite3.OperationalError as error:
            if is_locked(error):
                raise NoLedger(
                    f"the ledger of promotions, {self}, is locked by another process for more than {PATIENCE} s. Nothing was changed; "
                    "try again when that process has ended."
                ) from None
            raise NoLedger(f"the ledger of promotions, {self}, cannot be used: {error}. Nothing was changed.") from None
        except sqlite3.DatabaseError as error:
            raise self.damaged(str(error)) from None
        except Exception as error:
            if not type(error).__module__.startswith("psycopg"):
                raise
            why = (str(error).splitlines() or [""])[0]
            raise NoLedger(f"the ledger of promotions, {self} (the param promote.ledger), cannot be used: {why}.") from None

    def _connect(self, writing: bool) -> Any:
        if isinstance(self.place, Path):
            mode = "rwc" if writing else "rw"  # not ro: what a killed writer left half done is taken back
            file = sqlite3.connect(f"file:{quote(str(self.place))}?mode={mode}", timeout=PATIENCE, isolation_level=None, uri=True)
            file.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
            return file
        import psycopg

        server = psycopg.connect(self.place, autocommit=True, connect_timeout=PATIENCE)
        server.execute("BEGIN")
        if writing:
            server.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (TABLE,))
        return server


_MAKE = f"CREATE TABLE IF NOT EXISTS {TABLE} (number INTEGER PRIMARY KEY, hash TEXT NOT NULL, record TEXT NOT NULL)"
_THERE = {
    True: f"SELECT COUNT(*) FROM sqlite_master WHERE name = '{TABLE}'",
    False: f"SELECT COUNT(*) FROM pg_tables WHERE tablename = '{TABLE}'",
}


def _hash(before: str, text: str) -> str:
    return hashlib.sha256(f"{before}\n{text}".encode()).hexdigest()


def read_entry(text: str) -> dict[str, Any] | None:
    """An entry of the ledger, or of a move that has begun; None for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("event") not in _KINDS:
        return None
    wanted = () if found["event"] == "forget" else ("version", "identity", "model")
    return found if all(isinstance(found.get(name), str) for name in wanted) else None
