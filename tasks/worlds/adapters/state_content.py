"""What counts of a state that is no table of Cairn's: JSON, kept row by row, so that a change costs the rows that it touched.

A state is one JSON value. Its tables (objects of many entries, near its top) are taken out of it and kept as rows; what is left is the
frame, in which a table stands as {}. Two states that come from one start share all rows that neither has changed.

The hash is the sum modulo 2^256 of one blake2b digest per value that lies at most DEPTH names below the top. It depends on what the
state says alone, not on how it was taken apart: a table in the frame counts as much as the same table in rows.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

DEPTH = 4
"""Names from the top down to a value that is hashed as one text; ours: object, table, row, field."""
LEAST = 16
"""Entries from which on an object is kept row by row; ours."""
MODULUS = 1 << 256

Path = tuple[str, ...]
Key = Any
"""What a table maps from: text in JSON, more in Python's dicts."""
_ABSENT: Any = object()
_dump = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def number_of(path: Path, value: Any) -> int:
    """What a part of a state adds to its hash. path: the names above it. value: JSON in canonical form. An empty object counts by being
    there."""
    if type(value) is dict and value and len(path) < DEPTH:
        return sum(number_of((*path, name), item) for name, item in value.items()) % MODULUS
    text = _dump(path) + _dump(value)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=32).digest(), "big")


def is_table(value: dict[Any, Any]) -> bool:
    """Whether a dict is kept row by row: many entries with plain keys, none of them with more entries of its own."""
    plain = len(value) >= LEAST and all(type(key) in (str, int) for key in value)
    return plain and all(type(row) is not dict or len(row) <= len(value) for row in value.values())


class Row:
    """One row of a table. token: what it is made again from, the source's matter. text: canonical JSON, "" for one that is not shown,
    or stands in the frame."""

    __slots__ = ("_number", "text", "token")

    def __init__(self, token: Any, text: str) -> None:
        self.token, self.text = token, text
        self._number: tuple[Path, int] | None = None

    def number(self, path: Path) -> int:
        """See `number_of`; computed once for the place where it lies."""
        if not self.text:
            return 0
        if self._number is None or self._number[0] != path:
            self._number = path, number_of(path, json.loads(self.text))
        return self._number[1]


class Table:
    """Rows by key, in an order: those of a start, which all states share, and what was changed since.

    base: the rows of the start. changed: key -> row, None for one that is gone. order: all keys, None for the order of the base.
    """

    __slots__ = ("_sums", "base", "changed", "order")

    def __init__(
        self, base: dict[Key, Row], changed: dict[Key, Row | None] | None = None, order: tuple[Key, ...] | None = None
    ) -> None:
        self.base, self.changed, self.order = base, changed or {}, order
        self._sums: dict[tuple[Path, Any], int] = {}

    def get(self, key: Key) -> Row | None:
        """The row of a key; None for none."""
        return self.changed[key] if key in self.changed else self.base.get(key)

    def keys(self) -> Iterable[Key]:
        """The keys, in the order of the dict."""
        return self.base if self.order is None else self.order

    def items(self) -> Iterator[tuple[Key, Row]]:
        """Pairs of key and row, in the order of the dict."""
        for key in self.keys():
            row = self.get(key)
            assert row is not None  # an order names what is there
            yield key, row

    def __len__(self) -> int:
        return len(self.base) if self.order is None else len(self.order)

    def after(self, rows: Mapping[Key, Row | None], order: tuple[Key, ...] | None) -> Table:
        """The table with other rows; order: the keys when some came, went or moved, else None."""
        table = Table(self.base, {**self.changed, **rows}, self.order if order is None else order)
        table._sums = self._sums  # of the base, for every place and manner of naming
        return table

    def apart(self, other: Table) -> Iterable[Key]:
        """The keys at which two tables may differ."""
        if self.base is other.base:
            return {**self.changed, **other.changed}
        return dict.fromkeys([*self.keys(), *other.keys()])

    def total(self, path: Path, name: Any) -> int:
        """The sum of its rows. name: how a key is written."""
        if (path, name) not in self._sums:
            self._sums[path, name] = sum(row.number((*path, name(key))) for key, row in self.base.items()) % MODULUS
        total = self._sums[path, name]
        for key, row in self.changed.items():
            place, old = (*path, name(key)), self.base.get(key)
            total += (row.number(place) if row else 0) - (old.number(place) if old else 0)
        return total % MODULUS


@dataclass(frozen=True, eq=False)
class Content:
    """A state. frame: all but the rows, as canonical JSON. tables: where a table stands in the frame -> its rows. name: how keys are
    written."""

    frame: str
    tables: Mapping[Path, Table] = field(default_factory=dict)
    name: Any = str

    @functools.cached_property
    def number(self) -> int:
        """The state's hash."""
        frame = json.loads(self.frame)
        total = number_of((), frame)
        for path, table in self.tables.items():
            rows = table.total(path, self.name)
            alone = functools.reduce(dict.__getitem__, path, frame) == {}
            total += rows - (number_of(path, {}) if alone and rows else 0)
        return total % MODULUS

    def value(self, rows: Mapping[Path, Iterable[Key]] | None = None) -> Any:
        """The state as JSON, the caller's own. rows: the only ones that are wanted of each table; None for all."""
        whole = json.loads(self.frame)
        for path, table in self.tables.items():
            wanted = table.keys() if rows is None else rows.get(path, ())
            found = {self.name(key): row for key in wanted if (row := table.get(key)) is not None}
            functools.reduce(dict.__getitem__, path, whole).update(
                {key: json.loads(row.text) for key, row in found.items() if row.text}
            )
        return whole

    @functools.cached_property
    def text(self) -> str:
        """The state as canonical JSON."""
        return self.frame if not self.tables else _dump(self.value())

    def same(self, other: Content) -> bool:
        """Whether two states say the same."""
        if self is other:
            return True
        if self.tables.keys() != other.tables.keys() or self.frame != other.frame:
            return self.number == other.number and self.text == other.text
        return all(not self._apart(other, path) for path in self.tables)

    def _apart(self, other: Content, path: Path) -> list[Key]:
        """The keys of the rows of a table that differ."""
        one, two = self.tables[path], other.tables[path]
        pairs = ((key, one.get(key), two.get(key)) for key in one.apart(two))
        return [key for key, old, new in pairs if old is not new and (old is None or new is None or old.text != new.text)]

    def apart(self, other: Content) -> tuple[Any, Any]:
        """Both states as JSON without the rows that are the same in both."""
        if self.tables.keys() != other.tables.keys():
            return json.loads(self.text), json.loads(other.text)
        rows = {path: self._apart(other, path) for path in self.tables}
        return self.value(rows), other.value(rows)


def text_diff(before: Content | str, after: Content | str, most: int | None = None) -> str:
    """Two states, or their canonical JSON, compared, one line per place: '- ' before, '+ ' after. most: number of lines."""
    before, after = (one if isinstance(one, Content) else Content(one) for one in (before, after))
    return "" if before.same(after) else "\n".join(list(_lines(*before.apart(after), ""))[:most])


def _lines(old: Any, new: Any, place: str) -> Iterator[str]:
    if type(old) is type(new) and isinstance(old, dict):
        for key in sorted({*old, *new}):
            yield from _lines(old.get(key, _ABSENT), new.get(key, _ABSENT), f"{place}.{key}")
    elif type(old) is type(new) and isinstance(old, list):
        for name, one, other in _items(old, new, "[{}]", 0):
            yield from _lines(one, other, place + name)
    elif isinstance(old, str) and isinstance(new, str) and old != new and "\n" in old + new:
        for name, one, other in _items(old.split("\n"), new.split("\n"), " line {}", 1):
            yield from _lines(one, other, place + name)
    elif old != new or type(old) is not type(new):
        shown = place.lstrip(". ") or "state"
        for sign, value in (("-", old), ("+", new)):
            if value is not _ABSENT:
                yield f"{sign} {shown}: {_dump(value)}"


def _items(old: list[Any], new: list[Any], name: str, first: int) -> Iterator[tuple[str, Any, Any]]:
    """(name, before, now) of the items that lie between what is the same at both ends. first: the number of the first one."""
    least = min(len(old), len(new))
    before = next((place for place in range(least) if not _equal(old[place], new[place])), least)
    most = least - before
    after = next((place for place in range(most) if not _equal(old[-1 - place], new[-1 - place])), most)
    pairs = zip_longest(old[before : len(old) - after], new[before : len(new) - after], fillvalue=_ABSENT)
    for place, (one, other) in enumerate(pairs, before + first):
        yield name.format(place), one, other


def _equal(one: Any, other: Any) -> bool:
    return one == other and _dump(one) == _dump(other)  # True equals 1
