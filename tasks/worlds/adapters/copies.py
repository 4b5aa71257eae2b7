"""Copies of Python objects, row by row: a call pays for the rows that it was handed, not for all that there are.

The tables of an object (dicts of many entries near its top) are replaced by `Rows`, which know what was handed out. Each row is a
pickle of its own, and so is the rest of the object with references to the tables. After a call only the rest and the rows that were
handed out are pickled again; to bring an object to another state only the rows that differ are made again.

That is exact because no row shares an object with another row or with the rest. Rows that do are kept with the rest, so that what is
one object stays one; they are pickled with every call. An object in which nothing is found to take apart is pickled whole, as rest."""

from __future__ import annotations

import functools
import io
import pickle
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.contract.values import canonical_json
from tasks.worlds.adapters.declared_fields import attributes
from tasks.worlds.adapters.plain_data import View, key_text
from tasks.worlds.adapters.shared_objects import VALUES, is_value, surely_apart
from tasks.worlds.adapters.state_content import DEPTH, Content, Path, Row, Table, is_table
from tasks.worlds.adapters.tracked_rows import Rows

REST = (-1, None)
"""The unit that is no row."""
Unit = tuple[int, Any]
WITH_REST = Row(None, "")
"""In place of a row that is kept with the rest."""


@dataclass(frozen=True)
class Kept:
    """What an object is made again from. rest: a pickle of (the object, the rows that are kept with it by unit). frame: what the rest
    shows, as canonical JSON. places: where each table stands in it. content: what counts of all.
    mostly_rows: whether making the rest again is cheap, measured by the whole, at the start."""

    rest: bytes
    tables: tuple[Table, ...]
    frame: str
    places: dict[int, Path]
    content: Content
    mostly_rows: bool

    @functools.cached_property
    def with_rest(self) -> frozenset[Unit]:
        """The rows that are kept with the rest."""
        return frozenset(
            (number, key) for number, table in enumerate(self.tables) for key, row in table.changed.items() if row is WITH_REST
        )


class Live:
    """An object in a state. at: that state. clean: whether it is still in it, but for what was handed out since."""

    def __init__(self, at: Kept) -> None:
        self.at, self.clean = at, True
        self.tables = [Rows(number) for number in range(len(at.tables))]
        for rows, table in zip(self.tables, at.tables, strict=True):
            for key, row in table.items():
                rows.keep(key, None if row is WITH_REST else pickle.loads(row.token))  # made by this process, never read from outside
        self._load_rest()

    def _load_rest(self) -> None:
        self.root, with_rest = _Unpickler(self.at.rest, self.tables).load()
        for (number, key), row in with_rest.items():
            self.tables[number].keep(key, row)

    def bring(self, to: Kept) -> None:
        """Bring it to another state, whatever was done to it. It must have as many tables."""
        before, self.at = self.at, to
        anew = not self.clean or before.rest != to.rest
        for rows, old, new in zip(self.tables, before.tables, to.tables, strict=True):
            wanted = [key for key in old.apart(new) if old.get(key) is not new.get(key)]
            sorted_anew = old.order is not new.order or (rows.moved and not self.clean)
            for key in wanted if self.clean else {*wanted, *rows.touched}:
                row = new.get(key)
                if row is None:
                    rows.drop(key)
                else:
                    sorted_anew |= key not in rows
                    rows.keep(key, None if row is WITH_REST else pickle.loads(row.token))
            if sorted_anew:
                rows.sort(new.keys())
            rows.forget()
        if anew:
            self._load_rest()
        self.clean = True


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, tables: Sequence[Rows]) -> None:
        super().__init__(io.BytesIO(data))
        self._tables = tables

    def persistent_load(self, number: Any) -> Any:
        return self._tables[number]


class _Owners:
    """Which unit holds which object. shared: units that hold one that another unit holds too, or a table."""

    def __init__(self, tables: Sequence[Mapping[Any, Any]]) -> None:
        self.tables = {id(table): number for number, table in enumerate(tables)}
        self.owners: dict[int, Unit] = {}
        self.shared: set[Unit] = set()
        self.reached: set[int] = set()
        self._alive: list[Any] = []  # with what they have made on the way, or its ids would be given to others

    def dump(self, unit: Unit, value: Any) -> bytes:
        """The pickle of a unit."""
        out = io.BytesIO()
        pickler = _Pickler(out, unit, self)
        pickler.dump(value)
        self._alive.append(pickler)
        return out.getvalue()


class _Pickler(pickle.Pickler):
    def __init__(self, out: io.BytesIO, unit: Unit, owners: _Owners) -> None:
        super().__init__(out, pickle.HIGHEST_PROTOCOL)
        self._unit, self._all, self._owners, self._tables = unit, owners, owners.owners, owners.tables

    def persistent_id(self, value: Any) -> int | None:
        if type(value) in VALUES or is_value(value):
            return None
        number = self._tables.get(id(value))
        if number is not None:
            self._all.reached.add(number)
            if self._unit is not REST:
                self._all.shared.add(self._unit)
            return number
        first = self._owners.setdefault(id(value), self._unit)
        if first is not self._unit:
            self._all.shared.update((first, self._unit))
        return None


# --- taking apart -----------------------------------------------------------------------------------------------------------------


def tables_in(root: Any) -> list[dict[Any, Any]]:
    """The dicts that become tables: many entries with plain keys, none with more entries of its own; reached over names alone."""
    found: dict[int, dict[Any, Any]] = {}
    seen: set[int] = set()

    def look(value: Any, depth: int) -> None:
        if id(value) in seen or depth >= DEPTH or type(value) in VALUES or isinstance(value, list | tuple | set | frozenset):
            return
        seen.add(id(value))
        if type(value) is not dict:
            for item in (attributes(value) or {}).values():
                look(item, depth + 1)
        elif depth and is_table(value):
            found[id(value)] = value
        else:
            for item in value.values():
                look(item, depth + 1)

    look(root, 0)
    return list(found.values())


@dataclass
class _Taken:
    """An object that was looked at: the units of it, pickled.

    touched: the keys of each table that were looked at. held: rows that are kept with the rest. reached: numbers of the tables that it
    leads to.
    """

    tables: Sequence[dict[Any, Any]]
    touched: Sequence[Collection[Any]]
    held: frozenset[Unit]
    rest: bytes = b""
    rows: dict[Unit, bytes] = field(default_factory=dict)
    reached: set[int] = field(default_factory=set)
    frame: str = ""
    places: dict[int, Path] = field(default_factory=dict)


class Copier:
    """Takes the objects of one world apart. view: how they are shown. by_row: False to keep them whole.

    parts: the objects that a root stands for, by name.
    """

    def __init__(self, view: View, by_row: bool, parts: Callable[[Any], dict[str, Any]]) -> None:
        self._view, self._by_row, self._parts = view, by_row, parts

    def start(self, root: Any) -> Kept:
        """The state of a new object, which all others are compared with row by row. Raises what pickling it raises, and NotPlain."""
        tables = tables_in(root) if self._by_row else []
        taken = self._take(root, tables, [list(table) for table in tables], frozenset(), None)
        mostly_rows = len(taken.rest) < sum(map(len, taken.rows.values()))
        return self._kept(taken, tuple(self._fresh(number, taken, None) for number in range(len(tables))), mostly_rows)

    def after(self, live: Live) -> Kept:
        """The state that an object was left in; `live.at` itself when that has not changed. Raises what pickling it raises, and
        NotPlain: then the object is of no use until it is brought to a state."""
        live.clean, before = False, live.at
        touched = [list(rows.touched) for rows in live.tables]
        taken = self._take(live.root, live.tables, touched, before.with_rest, before)
        tables = tuple(self._table(number, taken, before, live.tables[number].moved) for number in range(len(live.tables)))
        same = taken.rest == before.rest and all(one is other for one, other in zip(tables, before.tables, strict=True))
        live.at, live.clean = before if same else self._kept(taken, tables, before.mostly_rows), True
        for number, rows in enumerate(live.tables):
            rows.forget()
            if number not in taken.reached:  # nobody can say what whoever took it has done with it
                live.tables[number] = Rows(number)
        return live.at

    def whole(self, root: Any) -> Content:
        """What an object shows, looked at as a whole. Raises NotPlain, and ValueError for a number beyond what can be written."""
        return Content(canonical_json(self._view.frame(self._parts(root), {}, ())[0]))

    def _kept(self, taken: _Taken, tables: tuple[Table, ...], mostly_rows: bool) -> Kept:
        shown = {place: tables[number] for number, place in taken.places.items()}
        return Kept(taken.rest, tables, taken.frame, taken.places, Content(taken.frame, shown, key_text), mostly_rows)

    def _take(
        self,
        root: Any,
        tables: Sequence[dict[Any, Any]],
        touched: Sequence[Collection[Any]],
        held: frozenset[Unit],
        before: Kept | None,
    ) -> _Taken:
        """Pickle what was handed out, with the rest whatever shares objects with others, and show the rest if it has changed."""
        while True:
            owners = _Owners(tables)
            taken = _Taken(tables, touched, frozenset(unit for unit in held if unit[1] in tables[unit[0]]))
            if not tables:
                taken.rest = pickle.dumps((root, {}), pickle.HIGHEST_PROTOCOL)
                self._show(root, taken, before)
                return taken
            with_rest = {unit: dict.__getitem__(tables[unit[0]], unit[1]) for unit in sorted(taken.held, key=repr)}
            taken.rest = owners.dump(REST, (root, with_rest))
            taken.reached = set(owners.reached)
            units = [(number, key) for number in sorted(owners.reached) for key in touched[number] if key in tables[number]]
            rows = {unit: dict.__getitem__(tables[unit[0]], unit[1]) for unit in units if unit not in taken.held}
            if surely_apart(rows.values(), set(owners.owners)):
                taken.rows = {unit: pickle.dumps(row, pickle.HIGHEST_PROTOCOL) for unit, row in rows.items()}
            else:
                taken.rows = {unit: owners.dump(unit, row) for unit, row in rows.items()}
            more = owners.shared - {REST}
            if not more:
                self._show(root, taken, before)
                homeless = [number for number in taken.reached if number not in taken.places]
                more = {(number, key) for number in homeless for key in tables[number]} - taken.held
            if not more:
                return taken
            held = taken.held | more

    def _show(self, root: Any, taken: _Taken, before: Kept | None) -> None:
        if before is not None and taken.rest == before.rest:
            taken.frame, taken.places = before.frame, before.places
            return
        numbers = {id(table): number for number, table in enumerate(taken.tables) if number in taken.reached}
        frame, taken.places = self._view.frame(self._parts(root), numbers, taken.held)
        taken.frame = canonical_json(frame)

    def _table(self, number: int, taken: _Taken, before: Kept, moved: bool) -> Table:
        """A table after a call."""
        old, rows = before.tables[number], taken.tables[number]
        if number not in taken.reached:
            return old if not len(old) else Table({})
        if taken.places.get(number) != before.places.get(number):  # rows are shown by where they are
            return self._fresh(number, taken, old)
        changed: dict[Any, Row | None] = {}
        for key in {*taken.touched[number], *(key for place, key in taken.held | before.with_rest if place == number)}:
            was = old.get(key)
            if was is not None and was.token is not None and was.token == taken.rows.get((number, key)):
                continue  # most rows that are looked at are as they were
            now = self._row(number, key, taken, was) if key in rows else None
            if now is not was:
                changed[key] = now
        return old.after(changed, tuple(rows) if moved else None) if changed or moved else old

    def _fresh(self, number: int, taken: _Taken, old: Table | None) -> Table:
        """A table of which every row is new."""
        rows = {key: self._row(number, key, taken, old.get(key) if old else None, anew=True) for key in taken.tables[number]}
        if number not in taken.reached:
            return Table({})
        with_rest: dict[Any, Row | None] = {key: row for key, row in rows.items() if row is WITH_REST}
        return Table({key: row for key, row in rows.items() if row is not WITH_REST}, with_rest, tuple(rows) if with_rest else None)

    def _row(self, number: int, key: Any, taken: _Taken, was: Row | None, anew: bool = False) -> Row:
        """A row that is there. anew: it has to be shown anew, whether it has changed or not."""
        if (number, key) in taken.held:
            return WITH_REST
        token = taken.rows.get((number, key), was.token if was is not None else None)
        if was is not None and token == was.token and not anew:
            return was
        path = (*taken.places.get(number, ()), key_text(key))
        value = dict.__getitem__(taken.tables[number], key)
        return Row(token, "" if self._view.leaves_out(path) else canonical_json(self._view.plain(value, path)))
