"""How the rows of a state belong together: foreign keys found by their values, whose rows are whose, and the table of roots.

A column (a place in the rows of one table, at any depth) refers to a table when nearly all of its values are ids of that table's
rows. Values that could be anything (small numbers, words such as "pending") need a name that says so too: `customer_id` or `customer`
for a table `customers`. A row *belongs* to another one when it refers to it alone (an order to its customer), or when nobody else is
referred to by it (a customer's list of orders). Cost: linear in the state, once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tasks.contract.problem import SPLITS
from tasks.worlds.adapters.context_tables import (
    ANY,
    ITEM,
    KEY,
    LONGEST_ID,
    Table,
    is_id_name,
    leaves,
    looks_like_id,
    words_of,
)

FOUND = 0.8
"""Share of a column's values that must be ids of a table for the column to refer to it; ours: some point at what was deleted."""
PEOPLE = (
    *("customer", "client", "member", "patient", "guest", "passenger", "student", "subscriber", "user", "account", "employee"),
    *("person", "people", "contact", "owner", "tenant", "household", "profile"),
)
"""Names of tables of those whom an API serves, the surest first; ours."""

Place = tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One row. table: its place in the list of tables."""

    table: int
    key: str
    value: Any


@dataclass(eq=False)
class Column:
    """The values of one place in the rows of one table. rows: value -> numbers of the rows that have it."""

    table: int
    place: Place
    rows: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    @property
    def name(self) -> str:
        """The last word of its place that is a name, "" for keys of the table itself."""
        return next((part for part in reversed(self.place) if part not in (KEY, ANY, ITEM)), "")

    @property
    def is_sure(self) -> bool:
        """Whether its values can hardly be equal to others by chance."""
        return sum(map(looks_like_id, self.rows)) >= FOUND * len(self.rows)


@dataclass(frozen=True)
class Links:
    """Who refers to whom, by numbers of rows. belongs: row -> the rows that belong to it. refers: row -> rows that it refers to.
    named: id -> its row. roots: the table whose rows everything is about."""

    tables: Sequence[Table]
    rows: Sequence[Row]
    belongs: Mapping[int, Sequence[int]]
    refers: Mapping[int, Sequence[int]]
    named: Mapping[str, int]
    roots: int | None

    @cached_property
    def people(self) -> dict[str, int]:
        """Key -> number, of the rows that everything is about."""
        return {row.key: number for number, row in enumerate(self.rows) if row.table == self.roots}

    @cached_property
    def owners(self) -> dict[int, int]:
        """Row -> the root that it belongs to, of rows that belong to one alone."""
        found: dict[int, int] = {}
        shared = set()
        for root in self.people.values():
            for row in self.own(root):
                if found.setdefault(row, root) != root:
                    shared.add(row)
        return {row: root for row, root in found.items() if row not in shared}

    @cached_property
    def referred_by(self) -> dict[int, list[int]]:
        """Row -> the rows that refer to it."""
        found: dict[int, list[int]] = defaultdict(list)
        for row, others in self.refers.items():
            for other in others:
                found[other].append(row)
        return found

    def own(self, root: int) -> list[int]:
        """The root and all that belongs to it, nearest first: directly, or through its rows, or to several of them and nobody else's;
        no other row of its table."""
        found, waiting = {root}, [root]
        for one in waiting:
            belonging = set(self.belongs.get(one, ()))
            for row in dict.fromkeys((*self.belongs.get(one, ()), *self.refers.get(one, ()))):
                if row in found or self.rows[row].table == self.rows[root].table:
                    continue
                if row in belonging or found.issuperset(self.referred_by[row]):
                    found.add(row)
                    waiting.append(row)
        return waiting


def link(tables: Sequence[Table], named: Place | None = None) -> Links:
    """The links of all tables. named: path of the table whose rows are the roots; by default the one that others belong to most."""
    rows = [Row(place, key, value) for place, table in enumerate(tables) for key, value in table.rows.items()]
    columns = _columns(rows)
    ids = _ids(columns, tables)
    belongs: dict[int, dict[int, None]] = defaultdict(dict)
    refers: dict[int, dict[int, None]] = defaultdict(dict)
    owners: dict[int, set[int]] = defaultdict(set)
    for column, to in _references(columns, ids, tables):
        found = ((one, other) for value, rows in column.rows.items() for one in rows for other in to.rows.get(value, ()))
        pairs = list(dict.fromkeys((one, other) for one, other in found if one != other))
        for one, other in pairs:
            refers[one][other] = None
        if _once(one for one, _ in pairs):
            owners[to.table].add(column.table)
            for one, other in pairs:
                belongs[other][one] = None
        if _once(other for _, other in pairs):
            owners[column.table].add(to.table)
            for one, other in pairs:
                belongs[one][other] = None
    known = {value: numbers[0] for one in reversed(ids) for value, numbers in one.rows.items()}
    return Links(tables, rows, _lists(belongs), _lists(refers), known, _roots(tables, owners, named))


def _columns(rows: Sequence[Row]) -> list[Column]:
    """All columns whose values may be ids."""
    found: dict[tuple[int, Place], Column] = {}
    for number, row in enumerate(rows):
        for place, value in ((((KEY,), row.key)), *leaves(row.value)):
            if isinstance(value, bool) or not isinstance(value, str | int):
                continue
            text = str(value)
            if text and len(text) <= LONGEST_ID:
                at = (row.table, place)
                column = found[at] if at in found else found.setdefault(at, Column(*at))
                if not (there := column.rows[text]) or there[-1] != number:
                    there.append(number)
    return list(found.values())


def _ids(columns: Sequence[Column], tables: Sequence[Table]) -> list[Column]:
    """The columns whose values each name one row: keys, fields that say so, and what can hardly be anything else. One whose values are
    the keys of another table is a foreign key, not an id."""
    keys = [one for one in columns if one.place == (KEY,) and (not tables[one.table].listed or tables[one.table].id)]
    holders: dict[str, set[int]] = defaultdict(set)
    for one in keys:
        for value in one.rows:
            holders[value].add(one.table)
    more = []
    for one in columns:
        if one.place == (KEY,) or any(len(rows) > 1 for rows in one.rows.values()) or not _may_be_id(one, tables[one.table]):
            continue
        foreign = Counter(table for value in one.rows for table in holders.get(value, ()) if table != one.table)
        if max(foreign.values(), default=0) < FOUND * len(one.rows):
            more.append(one)
    return [*keys, *more]


def _may_be_id(column: Column, table: Table) -> bool:
    """Whether values that name one row each do so on purpose: a field of every row that is called so, or values that look like it."""
    rows = {number for numbers in column.rows.values() for number in numbers}
    called = len(column.place) == 1 and column.place[0] != ITEM and is_id_name(column.name) and len(rows) == len(table.rows)
    return called or (column.is_sure and len(table.rows) > 1)


def _references(columns: Sequence[Column], ids: Sequence[Column], tables: Sequence[Table]) -> Iterator[tuple[Column, Column]]:
    """(column, ids that it refers to), at most one for each pair of a column and a table."""
    holders: dict[str, list[int]] = defaultdict(list)
    for place, one in enumerate(ids):
        for value in one.rows:
            holders[value].append(place)
    sure = [one.is_sure for one in ids]
    for column in columns:
        hits = Counter(place for value in column.rows for place in holders.get(value, ()))
        there = [place for place, count in hits.items() if count >= FOUND * len(column.rows) and _refers_out(column, ids[place])]
        named = [place for place in there if _is_named(column, ids[place], tables)]
        alone = len({ids[place].table for place in there}) == 1 and is_id_name(column.name) and column not in ids
        best: dict[int, int] = {}
        for place in sorted(there, key=lambda place: (-hits[place], place)):
            if place in named or sure[place] or alone:
                best.setdefault(ids[place].table, place)
        yield from ((column, ids[place]) for place in best.values())


def _refers_out(column: Column, ids: Column) -> bool:
    """Whether a column refers to other rows than those that have it."""
    return column is not ids and any(
        one != other for value, rows in column.rows.items() for one in rows for other in ids.rows.get(value, ())
    )


def _is_named(column: Column, ids: Column, tables: Sequence[Table]) -> bool:
    """Whether a column's name says which table it refers to."""
    name = column.name or tables[column.table].name
    target = words_of(tables[ids.table].path[-1] if tables[ids.table].path else "")
    said = words_of(name)
    return bool(target and target[-1] in said) or (len(words_of(ids.name)) > 1 and words_of(ids.name) == said)


def _once(values: Iterable[int]) -> bool:
    """Whether no value comes twice."""
    return all(count == 1 for count in Counter(values).values())


def _lists(edges: Mapping[int, Mapping[int, None]]) -> dict[int, list[int]]:
    return {one: list(others) for one, others in edges.items()}


def _roots(tables: Sequence[Table], owners: Mapping[int, set[int]], named: Place | None) -> int | None:
    """The table whose rows everything is about: as named, or that of people, or that to which most tables belong; None for none."""
    if named is not None:
        return next((place for place, table in enumerate(tables) if table.path == named), None)
    large = [place for place, table in enumerate(tables) if len(table.rows) >= len(SPLITS) and (not table.listed or table.id)]

    def natural(place: int) -> tuple[int, int, int, int]:
        words = words_of(tables[place].path[-1]) if tables[place].path else []
        people = next((len(PEOPLE) - rank for rank, word in enumerate(PEOPLE) if words and words[-1] == word), 0)
        return people, len(owners.get(place, set()) - {place}), len(tables[place].rows), -place

    return max(large, key=natural, default=None)
