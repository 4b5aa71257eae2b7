"""States that come as one JSON value, what a server dumps, a service answers or a snapshot gives, taken apart into rows.

The first state of a source says which tables there are. Of a later one the rows that differ from the first one's are shown and hashed
anew, and no others: a state that is mostly tables costs its reading and the rows that changed.
"""

from __future__ import annotations

import functools
import marshal
from collections.abc import Collection, Iterator
from typing import Any

from tasks.worlds.adapters.plain_data import View, key_text
from tasks.worlds.adapters.state_content import DEPTH, Content, Path, Row, Table, is_table
from tasks.worlds.api.state import canonical_json


class StatesByRow:
    """The states of one source. view: how values are shown."""

    def __init__(self, view: View) -> None:
        self.view = view
        self._first: dict[Path, Table] | None = None

    def content(self, value: Any) -> Content:
        """What counts of a state. value: JSON, as it was parsed. Raises NotPlain."""
        first = self._first
        if first is None:
            first = {place: self._table(Table({}), _at(value, place), place) for place in _places(value) if not self._left_out(place)}
            first = self._first = {place: Table(table.changed) for place, table in first.items()}  # type: ignore[arg-type]
        rows = {place: found for place in first if type(found := _at(value, place)) is dict}
        tables = {_as_text(place): self._table(first[place], found, place) for place, found in rows.items()}
        return Content(canonical_json(self.view.plain(_without(value, rows))), tables, key_text)

    def _table(self, first: Table, rows: dict[str, Any], place: Path) -> Table:
        """A table of which only the rows that are not the first state's are new."""
        changed: dict[str, Row | None] = {key: None for key in first.base if key not in rows}
        moved = bool(changed)
        for key, value in rows.items():
            token, was = marshal.dumps(value, 2), first.get(key)  # equal values are no help: True equals 1
            if was is not None and was.token == token:
                continue
            row = self._row(value, token, (*_as_text(place), key_text(key)))
            if was is not None and was.text == row.text:
                was.token = token  # its names came in another order, and will again
            else:
                changed[key] = row
                moved |= was is None
        return first.after(changed, tuple(rows) if moved else None) if changed else first

    def _row(self, value: Any, token: bytes, path: Path) -> Row:
        return Row(token, "" if self.view.leaves_out(path) else canonical_json(self.view.plain(value, path)))

    def _left_out(self, place: Path) -> bool:
        return any(self.view.leaves_out(_as_text(place[:length])) for length in range(1, len(place) + 1))


def _places(value: Any, place: Path = ()) -> Iterator[Path]:
    """Where tables stand: the keys that lead to each."""
    if type(value) is dict and len(place) < DEPTH:
        if is_table(value):
            yield place
        else:
            for key, item in value.items():
                yield from _places(item, (*place, key))


def _at(value: Any, place: Path) -> Any:
    return functools.reduce(lambda held, key: held.get(key) if type(held) is dict else None, place, value)


def _without(value: Any, places: Collection[Path], place: Path = ()) -> Any:
    """A value with {} for its tables."""
    if place in places:
        return {}
    if type(value) is not dict or not any(one[: len(place)] == place for one in places):
        return value
    return {key: _without(item, places, (*place, key)) for key, item in value.items()}


def _as_text(place: Path) -> Path:
    return tuple(map(key_text, place))
