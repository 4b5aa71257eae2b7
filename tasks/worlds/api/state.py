"""The state of a world: tables of rows, copy-on-write, with an incremental canonical hash.

The rows that a world starts from are frozen once and shared by every fork; a fork holds only what it changed, so that fork,
reset, snapshot and restore cost the number of *changed* rows, not the size of the tables.

The hash is the sum modulo 2^256 of one blake2b digest per row (table, key, canonical JSON). A sum does not depend on order and
is updated from the changed rows alone. It names a state; like every additive hash it is no defence against somebody who
constructs collisions. Which values a row holds, and which of them are equal, is said in `tasks.contract.values`.

A world may declare two things about its tables:
- logs: tables that record what happened (an audit trail, when a row was last looked at). They are in snapshots and are reset, but
  are no part of hash, diff and grading. Therefore a look-up may write to them, and a tool that writes may not look into them: what
  it does would depend on earlier look-ups. `State.log` appends without looking.
- optional: fields of a table for which null and absent are the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tasks.contract.problem import Kind
from tasks.contract.values import Row, canonical, canonical_json, frozen, row_of

Rows = Mapping[str, Mapping[str, Any]]
Tables = Mapping[str, Rows]
"""Table name -> key -> row. Keys are strings; a row is an object of JSON values, sets and decimals."""

_MODULUS = 1 << 256
_ABSENT: Any = object()
_START: tuple[Any, int] = (_ABSENT, 0)
_NONE: Mapping[str, Any] = {}
_names = json.JSONEncoder(ensure_ascii=False).encode


def row_hash(table: str, key: str, row: Mapping[str, Any]) -> int:
    """The 256-bit number that a row adds to the hash of its state."""
    text = _names([table, key]) + canonical_json(row)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=32).digest(), "big")


def _same(one: Row | None, other: Row | None) -> bool:
    """Equal in canonical form: Python's == alone would take true for 1."""
    return one is other or (one == other and canonical_json(one) == canonical_json(other))


def _exact(value: Any) -> Any:
    """Something hashable that is equal for values of one canonical form."""
    if type(value) is str or value is None:
        return value
    form = canonical(value)
    return form if type(form) in (int, float) else (canonical_json(form),)


class Base:
    """The rows a world starts from: frozen, shared by all forks, hashed once. logs, optional: see the module.

    Raises TypeError or ValueError, with table, key and reason, for what cannot be a row.
    """

    def __init__(self, tables: Tables, logs: Iterable[str] = (), optional: Mapping[str, Iterable[str]] | None = None) -> None:
        self.tables: dict[str, dict[str, Row]] = {}
        for name, rows in tables.items():
            if not isinstance(rows, Mapping):
                raise TypeError(f"table {name!r} must map keys to rows, got {type(rows).__name__}")
            self.tables[str(name)] = {key: checked(name, key, row) for key, row in rows.items()}
        self.logs = frozenset(logs)
        self.optional = {name: frozenset(fields) for name, fields in (optional or {}).items()}
        for name in (*sorted(self.logs), *self.optional):
            if name not in self.tables:
                where = "LOGS" if name in self.logs else "OPTIONAL"
                raise ValueError(f"{where} names {name!r}, which is no table; tables: {', '.join(self.tables)}")
        for name, fields in (optional or {}).items():
            if isinstance(fields, str):
                raise ValueError(f"OPTIONAL[{name!r}] = {fields!r} is text; write ({fields!r},)")
        self._hash: int | None = None
        self._indexes: dict[tuple[str, tuple[str, ...]], dict[Any, list[str]]] = {}

    def total(self) -> int:
        """Sum of the hashes of all rows, computed at the first use."""
        if self._hash is None:
            counted = ((name, rows) for name, rows in self.tables.items() if name not in self.logs)
            self._hash = sum(self.number(name, key, row) for name, rows in counted for key, row in rows.items()) % _MODULUS
        return self._hash

    def number(self, table: str, key: str, row: Row | None) -> int:
        """What a row adds to the sum; 0 for no row."""
        return 0 if row is None else row_hash(table, key, self.without_nulls(table, row))

    def without_nulls(self, table: str, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """A row without the optional fields that are null."""
        optional = self.optional.get(table)
        if not optional:
            return row
        return {name: value for name, value in row.items() if value is not None or name not in optional}

    def index(self, table: str, fields: tuple[str, ...]) -> dict[Any, list[str]]:
        """Values of `fields` -> keys of the rows that hold them, in table order; built at the first use."""
        if (table, fields) not in self._indexes:
            found: dict[Any, list[str]] = {}
            for key, row in self.tables[table].items():
                found.setdefault(_values(row, fields), []).append(key)
            self._indexes[table, fields] = found
        return self._indexes[table, fields]


def checked(table: str, key: Any, row: Any) -> Row:
    """A row as it is kept; the error says where it is."""
    try:
        if type(key) is not str:
            raise TypeError(f"keys must be strings, got {type(key).__name__}")
        if not isinstance(row, Mapping):
            raise TypeError(f"a row must be an object, got {type(row).__name__}")
        frozen(key)
        kept: Row = frozen(row)
        return kept
    except (TypeError, ValueError) as error:
        raise type(error)(f"table {table!r}, row {key!r}: {error}") from None


def _values(row: Mapping[str, Any], fields: tuple[str, ...]) -> Any:
    if len(fields) == 1:
        return _exact(row.get(fields[0]))
    return tuple([_exact(row.get(field)) for field in fields])


Snapshot = tuple[tuple[str, tuple[str, ...], tuple[Row | None, ...]], ...]
"""The changed rows of each changed table: (table, keys, rows), with None for a removed row."""


class State:
    """One fork of the tables. A world's tools read and write through it, and keep no other state."""

    __slots__ = ("_changed", "_counted", "_kind", "_moved", "_recount", "_sum", "_undo", "base")

    def __init__(self, base: Base) -> None:
        self.base = base
        self._changed: dict[str, dict[str, Row | None]] = {}
        self._kind: Kind | None = None
        self._undo: list[tuple[str, str, Any]] = []
        self._sum = 0  # what the rows of _counted add to the base's sum
        self._counted: dict[tuple[str, str], tuple[Row | None, int]] = {}
        self._moved: set[tuple[str, str]] = set()  # rows written since; all of them after a restore
        self._recount = False

    # --- looking -----------------------------------------------------------------------------------------------------------

    def get(self, table: str, key: str) -> Row | None:
        """The row, or None. Rows are read-only."""
        self._look(table)
        return self._get(table, key)

    def _get(self, table: str, key: str) -> Row | None:
        changed = self._changed.get(table)
        if changed is not None and key in changed:
            return changed[key]
        return self._table(table).get(key)

    def _table(self, table: str) -> dict[str, Row]:
        try:
            return self.base.tables[table]
        except KeyError:
            raise KeyError(f"no table {table!r}; tables: {', '.join(self.base.tables)}") from None

    def _look(self, table: str) -> None:
        if self._kind == "write" and table in self.base.logs:
            raise PermissionError(
                f"a tool that writes looked into the log table {table}; logs are no state, so what it does would depend on "
                "earlier look-ups. Keep what it needs in another table; State.log appends without looking."
            )

    def rows(self, table: str) -> Iterator[tuple[str, Row]]:
        """All (key, row) pairs of a table, in a fixed order: the base's, then new keys sorted."""
        self._look(table)
        base = self._table(table)
        changed = dict(self._changed.get(table, _NONE))  # a tool may write to the table while it walks through it
        for key, row in base.items():
            if changed:
                row = changed.get(key, row)
            if row is not None:
                yield key, row
        for key in sorted(changed.keys() - base.keys()):
            if (new := changed[key]) is not None:
                yield key, new

    def find(self, table: str, **fields: Any) -> list[str]:
        """Keys of the rows whose fields hold exactly these values; indexed, so that size does not matter."""
        self._look(table)
        self._table(table)
        names = tuple(sorted(fields))
        values = _values(fields, names)
        found = self.base.index(table, names).get(values, [])
        changed = self._changed.get(table)
        if not changed:
            return list(found)
        new = ((key, changed[key]) for key in sorted(changed))
        kept = [key for key in found if key not in changed]
        return kept + [key for key, row in new if row is not None and _values(row, names) == values]

    # --- changing ----------------------------------------------------------------------------------------------------------

    def put(self, table: str, key: str, row: Mapping[str, Any]) -> None:
        """Insert or replace a row."""
        self._set(table, key, checked(table, key, row))

    def update(self, table: str, key: str, **changes: Any) -> None:
        """Change some fields of an existing row."""
        row = self._get(table, key)
        if row is None:
            raise KeyError(f"no row {key!r} in table {table!r}")
        self._set(table, key, row_of({**row, **checked(table, key, changes)}))

    def remove(self, table: str, key: str) -> None:
        """Delete a row; deleting one that does not exist changes nothing."""
        self._set(table, key, None)

    def log(self, table: str, row: Mapping[str, Any]) -> None:
        """Append a row to a log table, under the next number."""
        if table not in self.base.logs:
            raise PermissionError(f"{table} is no log table; the world declares: LOGS = {tuple(sorted(self.base.logs))}")
        number = len(self.base.tables[table]) + len(self._changed.get(table, _NONE))
        while self._get(table, f"{number:09d}") is not None:
            number += 1
        self.put(table, f"{number:09d}", row)

    def _set(self, table: str, key: str, row: Row | None) -> None:
        start = self._table(table).get(key)
        if self._kind is not None:
            if self._kind != "write" and table not in self.base.logs:
                raise PermissionError(
                    f"a tool that is not a write tried to change {table} {key}; mark it @write, or name {table} in LOGS"
                )
            self._undo.append((table, key, self._changed.get(table, _NONE).get(key, _ABSENT)))
        self._moved.add((table, key))
        changed = self._changed.setdefault(table, {})
        if _same(start, row):
            changed.pop(key, None)
        else:
            changed[key] = row

    def begin(self, kind: Kind) -> None:
        """A tool of this kind runs until `finish`: what it may touch is limited, and what it changes can be undone."""
        self._kind = kind
        self._undo.clear()

    def finish(self, keep: bool) -> None:
        """The tool has ended; keep what it changed (logs too), or take it all back."""
        self._kind = None
        if not keep:
            for table, key, row in reversed(self._undo):
                self._moved.add((table, key))
                if row is _ABSENT:
                    self._changed[table].pop(key, None)
                else:
                    self._changed[table][key] = row
        self._undo.clear()

    # --- as a whole --------------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Back to the start."""
        self._changed.clear()
        self._counted.clear()
        self._moved.clear()
        self._sum, self._recount = 0, False

    def snapshot(self) -> Snapshot:
        """What changed, as an immutable value that `restore` takes; it may be restored in any fork of the same base."""
        return tuple([(table, tuple(rows), tuple(rows.values())) for table, rows in self._changed.items() if rows])

    def restore(self, snapshot: Snapshot) -> None:
        """Back to a snapshot."""
        self._changed = {table: dict(zip(keys, rows, strict=True)) for table, keys, rows in snapshot}
        self._recount = True

    def changes(self) -> list[tuple[str, str, Row | None, Row | None]]:
        """(table, key, row at the start, row now) of every row that differs, sorted; logs are left out."""
        kept = ((table, key, row) for table, rows in self._changed.items() if table not in self.base.logs for key, row in rows.items())
        return [(table, key, self.base.tables[table].get(key), row) for table, key, row in sorted(kept, key=lambda one: one[:2])]

    def hash(self) -> str:
        """The canonical hash, 64 hex digits. Costs the rows written since the last time; after a restore one look at each changed
        row, but no row is hashed twice.
        """
        known = self._counted
        if self._recount:
            self._counted, self._sum, self._recount = {}, 0, False
            self._moved = {(table, key) for table, rows in self._changed.items() for key in rows}
        for pair in self._moved:
            if pair[0] not in self.base.logs:
                self._count(pair, known.get(pair, _START))
        self._moved.clear()
        return f"{(self.base.total() + self._sum) % _MODULUS:064x}"

    def _count(self, pair: tuple[str, str], known: tuple[Any, int]) -> None:
        """Bring the sum up to date for one row. known: the row when it was last counted, and what it added."""
        table, key = pair
        row = self._changed.get(table, _NONE).get(key, _ABSENT)
        now = known
        if row is _ABSENT:
            now = _START
        elif row is not known[0]:
            now = row, self.base.number(table, key, row) - self.base.number(table, key, self.base.tables[table].get(key))
        self._sum += now[1] - self._counted.pop(pair, _START)[1]
        if now is not _START:
            self._counted[pair] = now

    def diff(self) -> str:
        """The changes as text, one line per field: '- ' the start, '+ ' now."""
        lines: list[str] = []
        for table, key, before, after in self.changes():
            old, new = (self.base.without_nulls(table, row or _NONE) for row in (before, after))
            for field in sorted({*old, *new}):
                was, now = (canonical_json(row[field]) if field in row else None for row in (old, new))
                if was != now:
                    lines += [f"- {table} {key} {field}: {was}"] * (was is not None)
                    lines += [f"+ {table} {key} {field}: {now}"] * (now is not None)
        return "\n".join(lines)
