"""State that a server keeps in files of its seat: read, shown as JSON, and put back.

A SQLite file is read and written through SQLite itself, so a server that runs sees a consistent state and what was restored. All other
files are read and written whole; a server that has read one may keep what it read, so it is started anew when they are restored.

    file      shown as
    SQLite    table -> primary key -> row; a table without one as a list of rows, sorted
    .json     its value; .jsonl as a list
    text      its text
    other     its size and hash
    folder    relative path -> file
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tasks.contract.values import whole_text
from tasks.worlds.adapters.placeholders import Placeholders

MAGIC = b"SQLite format 3\0"
_COUNTERS = ((18, b"\1\1"), (24, bytes(4)), (92, bytes(4)))
"""Bytes of SQLite's header that differ between equal databases: whether it has a journal beside it, and two counters of changes."""
_BESIDE = ("-wal", "-shm", "-journal")

Contents = tuple[tuple[str, bytes], ...]
"""(path in the seat, bytes), sorted."""


class Unreadable(ValueError):
    """A file that is no state. The message names it."""


def contents(seat: Path, names: Iterable[str], placeholders: Placeholders, seconds: float) -> Contents:
    """What files and folders of a seat hold now; one that is not there holds nothing. Raises Unreadable."""
    found: dict[str, bytes] = {}
    for name in names:
        place = seat / name
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file() and not _is_beside(path):
                found[path.relative_to(seat).as_posix()] = _read(path, placeholders, seconds)
    return tuple(sorted(found.items()))


def is_database(content: bytes) -> bool:
    """Whether a file is one of SQLite's."""
    return content.startswith(MAGIC)


def put(state: Contents, seat: Path, names: Iterable[str], placeholders: Placeholders) -> None:
    """Make files and folders of a seat hold what they held. No server may run on them."""
    kept = {path for path, _ in state}
    for name in names:
        place = seat / name
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file() and path.relative_to(seat).as_posix() not in kept:
                path.unlink()
    for name, content in state:
        path = seat / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if is_database(content) else placeholders.reveal_bytes(content))


def put_live(state: Contents, seat: Path, seconds: float) -> None:
    """Write databases back into files that a server has open. Raises sqlite3.Error, such as for one that it holds locked, after so many
    seconds: a write that was refused often leaves a transaction open."""
    end = time.monotonic() + seconds

    def patiently(status: int, remaining: int, total: int) -> None:
        if (
            status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) and time.monotonic() > end
        ):  # backup() itself tries a locked database for ever
            raise sqlite3.OperationalError("it is locked")

    for name, content in state:
        with closing(sqlite3.connect(":memory:")) as source, closing(sqlite3.connect(seat / name, timeout=seconds)) as target:
            source.deserialize(content)
            source.backup(target, progress=patiently)


def as_json(state: Contents, names: Sequence[str], placeholders: Placeholders) -> Any:
    """Contents of these files and folders as JSON: of one file its value, and nothing ({} or []) while it is not there; of several, and
    of a folder, by path, with "_" for the dots in it. Raises Unreadable.
    """
    values = {name.replace(".", "_"): placeholders.hide(_value(name, content)) for name, content in state}
    if len(names) > 1 or [name for name, _ in state if name != Path(names[0]).as_posix()]:
        return values
    return next(iter(values.values()), _nothing(names[0]))


def _is_beside(path: Path) -> bool:
    """Whether SQLite keeps a file beside a database."""
    return any(path.name.endswith(end) and path.with_name(path.name.removesuffix(end)).exists() for end in _BESIDE)


def _read(path: Path, placeholders: Placeholders, seconds: float) -> bytes:
    with path.open("rb") as file:
        start = file.read(len(MAGIC))
        if start != MAGIC:
            return placeholders.hide_bytes(start + file.read())
    try:
        with closing(sqlite3.connect(path, timeout=seconds)) as database:
            content = bytearray(database.serialize())
    except sqlite3.Error as error:
        raise Unreadable(f"{path.name} cannot be read: {error}") from None
    for place, same in _COUNTERS:
        content[place : place + len(same)] = same
    return bytes(content)


def _nothing(name: str) -> Any:
    return [] if name.endswith(".jsonl") else {}


def _value(name: str, content: bytes) -> Any:
    if not content:  # as SQLite begins
        return _nothing(name)
    if is_database(content):
        return _tables(name, content)
    try:
        text = content.decode()
        if name.endswith(".jsonl"):
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        return json.loads(text) if name.endswith(".json") else whole_text(text)
    except (ValueError, RecursionError):
        return {"bytes": len(content), "blake2b": hashlib.blake2b(content, digest_size=16).hexdigest()}


def _tables(name: str, content: bytes) -> dict[str, Any]:
    """table -> its rows."""
    try:
        with closing(sqlite3.connect(":memory:")) as database:
            database.deserialize(content)
            names = [row[0] for row in database.execute("select name from sqlite_master where type = 'table' order by name")]
            return {table: _rows(database, table) for table in names if not table.startswith("sqlite_")}
    except sqlite3.Error as error:
        raise Unreadable(f"{name} is no database that can be shown: {error}") from None


def _rows(database: sqlite3.Connection, table: str) -> Any:
    quoted = '"' + table.replace('"', '""') + '"'
    columns = database.execute(f"pragma table_info({quoted})").fetchall()
    keys = [place for place, column in sorted(enumerate(columns), key=lambda one: one[1][5]) if column[5]]
    rows = [tuple(map(_plain, row)) for row in database.execute(f"select * from {quoted}")]
    named = [dict(zip((column[1] for column in columns), row, strict=True)) for row in rows]
    if keys:
        return {" ".join(str(row[place]) for place in keys): one for row, one in zip(rows, named, strict=True)}
    return sorted(named, key=lambda row: json.dumps(row, sort_keys=True))


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"(bytes {value.hex()})"
    return whole_text(value) if isinstance(value, str) else value
