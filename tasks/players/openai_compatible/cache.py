"""Every answer that was paid for, kept in one SQLite file by what was asked; and a ledger of who paid.

An answer is committed the moment it arrives (write-ahead log: a killed process loses no commit), together with its line in the
ledger. Safe under concurrent processes: of two answers to one question the first is kept, and both processes go on with it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tasks.contract.params import BadInput

NAME = "calls.sqlite"
"""The file's name in the state root."""
PATIENCE = 60.0
"""Seconds to wait for another process that writes."""

_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    key BLOB PRIMARY KEY, model TEXT NOT NULL, role TEXT NOT NULL, tokens_in INT NOT NULL, tokens_out INT NOT NULL,
    answer TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS paid (
    run TEXT, role TEXT, model TEXT, calls INT NOT NULL, tokens_in INT NOT NULL, tokens_out INT NOT NULL, money REAL NOT NULL,
    PRIMARY KEY (run, role, model));
CREATE TABLE IF NOT EXISTS odd (
    model TEXT, role TEXT, reason TEXT, times INT NOT NULL, said TEXT NOT NULL, PRIMARY KEY (model, role, reason));
"""
"""The file outlives versions: its columns keep their names. `run` holds the ledger's name."""
_PAY = """
INSERT INTO paid VALUES (?, ?, ?, 1, ?, ?, ?) ON CONFLICT DO UPDATE SET calls = calls + 1,
    tokens_in = tokens_in + excluded.tokens_in, tokens_out = tokens_out + excluded.tokens_out, money = money + excluded.money
"""


SHORTEST = 6
"""Letters of an answer's id that are needed to name it."""


def key_of(url: str, identity: str, sent: bytes, sample: int, reported: str = "") -> bytes:
    """Names an answer: who was asked, everything that was sent (the model's name is in it, no key is), and the request's sample number.

    Who was asked is the user's word for it (`identity`) or else the server's host, alone: a server that comes back on another port or
    under another path has the same model behind the same name, and what was paid must be found again; of two hosts nobody knows that.
    Two servers on one host that serve different models under one name need an identity each; one model on two hosts needs the same.
    What the server said of the model (`reported`, from params/roles.lock) is part of who it is: another model behind a name is asked.
    """
    who = (f"identity {identity}" if identity else f"host {_host(url)}") + (f" {reported}" if reported else "")
    return hashlib.sha256(b"\0".join((b"2", who.encode(), str(sample).encode(), sent))).digest()


def _host(url: str) -> str:
    host = (urlsplit(url).hostname or url).rstrip(".")
    return "this machine" if host in ("localhost", "127.0.0.1", "::1", "0.0.0.0") else host


def first_key_of(url: str, sent: bytes, sample: int) -> bytes:
    """The name that the first version gave: with the whole address in it. An answer under it is found as long as that is the same."""
    return hashlib.sha256(b"\0".join((url.encode(), str(sample).encode(), sent))).digest()


def answer_id(key: bytes) -> str:
    """An answer's id in messages, for `cairn calls --forget-answer`."""
    return key.hex()[:12]


@dataclass(frozen=True)
class Paid:
    """One paid answer. ledger: names the run that paid. money: in the unit of the user's prices."""

    ledger: str
    role: str
    model: str
    tokens_in: int
    tokens_out: int
    money: float


class Cache:
    """The file in the folder `state`; in memory without one. Used by one thread at a time."""

    def __init__(self, state: Path | None) -> None:
        path = state / NAME if state else None
        try:
            if state:
                state.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path or ":memory:", timeout=PATIENCE, isolation_level=None, check_same_thread=False)
            self._make()
        except sqlite3.DatabaseError as error:
            raise BadInput(
                f"{path}: the cache of model calls cannot be opened ({error}). Move the file away to start a new one."
            ) from None

    def _make(self) -> None:
        """Put mode and tables in place. Of processes that do so at once, SQLite turns some away without waiting; they come again."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=NORMAL")
                self._db.executescript(_TABLES)
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > end:
                    raise
                time.sleep(0.02)

    def get(self, key: bytes) -> dict[str, Any] | None:
        """The answer kept under a key; {} when what is kept is no JSON object."""
        row = self._db.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        try:
            found = json.loads(row[0])
        except (ValueError, TypeError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def find(self, key: bytes, others: Callable[[], Iterable[bytes]], answered: str = "") -> dict[str, Any] | None:
        """The answer kept under a key; or under one of its other names, from which it is renamed. Those say less of who was asked:
        such an answer counts only if the model that gave it had the name that the server reports now (`answered`, "" for any)."""
        found = self.get(key)
        if found is not None:
            return found
        for other in others():
            found = self.get(other)
            if found is not None and (not answered or answered in (found.get("by") or [answered])):
                self._db.execute("UPDATE OR IGNORE answers SET key = ? WHERE key = ?", (key, other))
                return found
        return None

    def put(self, key: bytes, answer: Mapping[str, Any], paid: Paid) -> dict[str, Any]:
        """Keep an answer and write down what it cost; returns the answer that counts, which is that of whoever was first."""
        row = (key, paid.model, paid.role, paid.tokens_in, paid.tokens_out, json.dumps(answer))
        self._db.execute("BEGIN IMMEDIATE")
        try:
            new = self._db.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?)", row).rowcount
            self._db.execute(_PAY, (paid.ledger, paid.role, paid.model, paid.tokens_in, paid.tokens_out, paid.money))
        except sqlite3.Error:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
        return dict(answer) if new else self.get(key) or dict(answer)

    def pay(self, paid: Paid) -> None:
        """Write down what a call cost whose answer is not kept."""
        self._db.execute(_PAY, (paid.ledger, paid.role, paid.model, paid.tokens_in, paid.tokens_out, paid.money))

    def spent(self, ledger: str) -> tuple[int, float]:
        """(tokens in and out, money) that a run has paid, over all its stages, processes and attempts."""
        row = self._db.execute("SELECT SUM(tokens_in + tokens_out), SUM(money) FROM paid WHERE run = ?", (ledger,)).fetchone()
        return int(row[0] or 0), float(row[1] or 0.0)

    def kept(self) -> list[dict[str, Any]]:
        """Per model and role: answers kept and their tokens."""
        found = self._db.execute(
            "SELECT model, role, COUNT(*), SUM(tokens_in), SUM(tokens_out) FROM answers GROUP BY model, role ORDER BY model, role"
        )
        return [dict(zip(("model", "role", "answers", "tokens_in", "tokens_out"), row, strict=True)) for row in found]

    def money(self) -> dict[str, float]:
        """model -> money paid so far, kept answers or not."""
        return dict(self._db.execute("SELECT model, SUM(money) FROM paid GROUP BY model ORDER BY model"))

    def forget(self, model: str) -> int:
        """Delete a model's answers and give the room back; returns how many there were."""
        count = self._db.execute("DELETE FROM answers WHERE model = ?", (model,)).rowcount
        self._db.execute("DELETE FROM odd WHERE model = ?", (model,))
        self._db.execute("VACUUM")
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return count

    def forget_answer(self, key: bytes) -> None:
        """Delete a single answer."""
        self._db.execute("DELETE FROM answers WHERE key = ?", (key,))

    def named(self, beginning: str) -> list[tuple[bytes, str, str]]:
        """(key, model, role) of the answers whose id begins so; three at most."""
        found = self._db.execute("SELECT key, model, role FROM answers WHERE lower(hex(key)) LIKE ? LIMIT 3", (f"{beginning}%",))
        return [(bytes(row[0]), row[1], row[2]) for row in found]

    def note(self, model: str, role: str, reason: str, example: str) -> None:
        """Count something odd about an answer that was paid for, or a call that was refused. example: of the last one."""
        self._db.execute(
            "INSERT INTO odd VALUES (?, ?, ?, 1, ?) ON CONFLICT DO UPDATE SET times = times + 1, said = excluded.said",
            (model, role, reason, example),
        )

    def odd(self) -> list[dict[str, Any]]:
        """Per model, role and reason: how often, and what was said last."""
        found = self._db.execute("SELECT model, role, reason, times, said FROM odd ORDER BY model, role, times DESC, reason")
        return [dict(zip(("model", "role", "reason", "times", "said"), row, strict=True)) for row in found]

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
