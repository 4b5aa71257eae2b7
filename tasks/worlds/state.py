"""The state of a world: tables of JSON rows, copy-on-write, with an incremental canonical hash.

The rows that a world starts from are frozen once and shared by every fork; a fork holds only what it changed, so that fork,
reset, snapshot and restore cost the number of *changed* rows, not the size of the tables.

The hash is the sum modulo 2^256 of one blake2b digest per row (table, key, canonical JSON). A sum does not depend on order and
is updated from the changed rows alone. It names a state; like every additive hash it is no defence against somebody who
constructs collisions. Canonical JSON: sorted keys, and integral floats written as integers, so that 25 and 25.0 agree.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

Rows = Mapping[str, Mapping[str, Any]]
Tables = Mapping[str, Rows]
"""Table name -> key -> row. Keys are strings; a row is a JSON object."""

_MODULUS = 1 << 256


class Row(dict[str, Any]):
    """A JSON object that cannot be changed in place: rows are shared between forks. Change it with `State.update`."""

    __slots__ = ()

    def _frozen(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("rows are shared and cannot be changed in place; use State.put or State.update")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _frozen

    def __reduce__(self) -> tuple[Any, ...]:
        return Row, (dict(self),)


def frozen(value: Any) -> Any:
    """A JSON value with objects as `Row` and arrays as tuples."""
    if isinstance(value, Row):
        return value
    if isinstance(value, Mapping):
        for key in value:
            if type(key) is not str:
                raise TypeError(f"keys of a row must be strings, got {key!r}")
        return Row((key, frozen(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return tuple(frozen(item) for item in value)
    if value is None or type(value) in (str, int, float, bool):
        return value
    raise TypeError(f"a row holds JSON values only, got {type(value).__name__}: {value!r}")


def canonical(value: Any) -> Any:
    """A JSON value in the form that is hashed and compared: integral floats as integers, arrays as lists."""
    if type(value) is float:
        if value - value != 0.0:
            raise ValueError(f"{value!r} is not a JSON number")
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        return {key: canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    return value


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces."""
    return json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def row_hash(table: str, key: str, row: Mapping[str, Any]) -> int:
    """The 256-bit number that a row adds to the hash of its state."""
    text = json.dumps([table, key], ensure_ascii=False) + canonical_json(row)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=32).digest(), "big")


def _same(one: Row | None, other: Row | None) -> bool:
    """Equal as JSON: Python's == alone would take true for 1."""
    return one is other or (one == other and canonical_json(one) == canonical_json(other))


def _values(row: Mapping[str, Any], fields: tuple[str, ...]) -> str:
    return canonical_json([row.get(field) for field in fields])


class Base:
    """The rows a world starts from: frozen, shared by all forks, hashed once."""

    def __init__(self, tables: Tables) -> None:
        self.tables: dict[str, dict[str, Row]] = {
            str(name): {key: frozen(row) for key, row in rows.items()} for name, rows in tables.items()
        }
        self._hash: int | None = None
        self._indexes: dict[tuple[str, tuple[str, ...]], dict[str, list[str]]] = {}

    def total(self) -> int:
        """Sum of the hashes of all rows, computed at the first use."""
        if self._hash is None:
            pairs = ((name, key, row) for name, rows in self.tables.items() for key, row in rows.items())
            self._hash = sum(row_hash(*pair) for pair in pairs) % _MODULUS
        return self._hash

    def index(self, table: str, fields: tuple[str, ...]) -> dict[str, list[str]]:
        """Canonical values of `fields` -> keys of the rows that hold them, in table order; built at the first use."""
        if (table, fields) not in self._indexes:
            found: dict[str, list[str]] = {}
            for key, row in self.tables[table].items():
                found.setdefault(_values(row, fields), []).append(key)
            self._indexes[table, fields] = found
        return self._indexes[table, fields]


Snapshot = tuple[tuple[str, str, Row | None], ...]
"""The changed rows: (table, key, row), with None for a removed row."""


class State:
    """One fork of the tables. A world's tools read and write through it, and keep no other state."""

    __slots__ = ("_changed", "base", "writable")

    def __init__(self, base: Base) -> None:
        self.base = base
        self._changed: dict[tuple[str, str], Row | None] = {}
        self.writable = True

    def get(self, table: str, key: str) -> Row | None:
        """The row, or None. Rows are read-only."""
        if (table, key) in self._changed:
            return self._changed[table, key]
        return self._table(table).get(key)

    def _table(self, table: str) -> dict[str, Row]:
        if table not in self.base.tables:
            raise KeyError(f"no table {table!r}; tables: {', '.join(self.base.tables)}")
        return self.base.tables[table]

    def put(self, table: str, key: str, row: Mapping[str, Any]) -> None:
        """Insert or replace a row."""
        self._set(table, key, frozen(row))

    def update(self, table: str, key: str, **changes: Any) -> None:
        """Change some fields of an existing row."""
        row = self.get(table, key)
        if row is None:
            raise KeyError(f"no row {key!r} in table {table!r}")
        self._set(table, key, Row({**row, **{name: frozen(value) for name, value in changes.items()}}))

    def remove(self, table: str, key: str) -> None:
        """Delete a row; deleting one that does not exist changes nothing."""
        self._set(table, key, None)

    def _set(self, table: str, key: str, row: Row | None) -> None:
        if not self.writable:
            raise PermissionError(f"a tool that is not a write tried to change {table} {key}")
        if _same(self._table(table).get(key), row):
            self._changed.pop((table, key), None)
        else:
            self._changed[table, key] = row

    def rows(self, table: str) -> Iterator[tuple[str, Row]]:
        """All (key, row) pairs of a table, in a fixed order: the base's, then new keys sorted."""
        base = self._table(table)
        for key in base:
            row = self.get(table, key)
            if row is not None:
                yield key, row
        for key in sorted(key for name, key in self._changed if name == table and key not in base):
            row = self._changed[table, key]
            if row is not None:
                yield key, row

    def find(self, table: str, **fields: Any) -> list[str]:
        """Keys of the rows whose fields hold exactly these values; indexed, so that size does not matter."""
        self._table(table)
        names = tuple(sorted(fields))
        values = _values(fields, names)
        found = [key for key in self.base.index(table, names).get(values, ()) if (table, key) not in self._changed]
        changed = sorted(key for name, key in self._changed if name == table)
        rows = ((key, self._changed[table, key]) for key in changed)
        return found + [key for key, row in rows if row is not None and _values(row, names) == values]

    def reset(self) -> None:
        """Back to the start."""
        self._changed.clear()

    def snapshot(self) -> Snapshot:
        """What changed, as an immutable value that `restore` takes; it may be restored in any fork of the same base."""
        return tuple((table, key, row) for (table, key), row in self._changed.items())

    def restore(self, snapshot: Snapshot) -> None:
        """Back to a snapshot."""
        self._changed = {(table, key): row for table, key, row in snapshot}

    def changes(self) -> list[tuple[str, str, Row | None, Row | None]]:
        """(table, key, row at the start, row now) of every row that differs, sorted."""
        pairs = sorted(self._changed.items(), key=lambda item: item[0])
        return [(table, key, self.base.tables[table].get(key), row) for (table, key), row in pairs]

    def hash(self) -> str:
        """The canonical hash, 64 hex digits."""
        total = self.base.total()
        for table, key, before, after in self.changes():
            if before is not None:
                total -= row_hash(table, key, before)
            if after is not None:
                total += row_hash(table, key, after)
        return f"{total % _MODULUS:064x}"

    def diff(self) -> str:
        """The changes as text, one line per field: '- ' the start, '+ ' now."""
        lines: list[str] = []
        for table, key, before, after in self.changes():
            old: Mapping[str, Any] = before or {}
            new: Mapping[str, Any] = after or {}
            for field in sorted({*old, *new}):
                was, now = (canonical_json(row[field]) if field in row else None for row in (old, new))
                if was != now:
                    lines += [f"- {table} {key} {field}: {was}"] * (was is not None)
                    lines += [f"+ {table} {key} {field}: {now}"] * (now is not None)
        return "\n".join(lines)
