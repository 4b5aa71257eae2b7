"""What a generator is shown of a state: one root row (a customer), what belongs to it and what that refers to, in whole rows.

The nearest rows come first, what belongs to the root before what everybody shares, as many as a budget of tokens holds. Nearer rows
may take SHARE of what is left, so that those that they refer to (the product of an order) are shown too; what then is free is filled
with the rest. Rows that do not fit are counted, never cut; only a root row that is larger than the whole budget is shortened, and the
excerpt says so. Cost: the state is read once per world; an excerpt takes milliseconds, however large the state is.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from random import Random
from typing import Any

from tasks.contract.params import BadInput
from tasks.worlds.adapters.context_limits import Limits, limits_of
from tasks.worlds.adapters.context_links import Links, Place, link
from tasks.worlds.adapters.context_tables import BYTES_PER_TOKEN, cleaned, leaves, size, tables_of
from tasks.worlds.api.problem_making import Excerpt

LONGEST_ROW = 24_000
"""Bytes that the rows of a table have at most on average: what is larger holds tables of its own; ours."""
SHARE = 0.6
"""Share of the bytes that are left which rows at one distance may take before farther ones had their turn; ours."""
SETTINGS = 0.1
"""Share of the bytes for values outside of all tables, such as today's date; ours."""
NOTHING = 40
"""Bytes into which no row fits; ours: then no further one is measured."""
BARE = 0.1
"""How often a user to whom nothing belongs is chosen, against one with rows of their own: there is little to be done for them; ours."""
SHORTENED = "parts of the user"
"""What is said to be left out of a root row that is larger than the budget."""


@dataclass(frozen=True)
class Slice:
    """An excerpt. user: the root row. state: the other rows in the shape of the state. own: those that belong to the root, by table.
    left_out: table -> rows that are near enough and did not fit."""

    user: Any
    state: Any
    own: Mapping[str, Sequence[Any]]
    left_out: Mapping[str, int]


@dataclass(frozen=True)
class Reader:
    """A state that was read: its rows and how they belong together. settings: the values outside of all tables."""

    links: Links
    settings: Mapping[Place, Any]
    _limits: dict[str, Limits] = field(default_factory=dict)
    _sizes: dict[int, int] = field(default_factory=dict)
    _owned: dict[int, list[int]] = field(default_factory=dict)

    @property
    def users(self) -> dict[str, Any]:
        """The root rows by key, as a table of users: a row is a mapping."""
        rows = {key: self.links.rows[number].value for key, number in self.links.people.items()}
        return {key: row if isinstance(row, dict) else {"value": row} for key, row in rows.items()}

    def choose(self, users: Mapping[str, int | None], policy: str, excerpt: Excerpt, rng: Random) -> tuple[str, tuple[int, ...], str]:
        """(one of the users, numbers of rows of theirs at a limit, why they are); the last two () and "" for most. users: user ->
        number of their root row, None where it is not known."""
        if rng.random() < excerpt.edge_cases:
            if policy not in self._limits:
                self._limits[policy] = limits_of(self.links, self.settings, policy)
            of = {root: user for user, root in users.items() if root is not None}
            if found := self._limits[policy].draw(frozenset(of), rng):
                return of[found.root], found.rows, found.reason
        return self.anybody(users, rng), (), ""

    def anybody(self, users: Mapping[str, int | None], rng: Random) -> str:
        """One of the users, mostly one with rows of their own."""
        weights = [1.0 if root is None or len(self._own(root)) > 1 else BARE for root in users.values()]
        return rng.choices(list(users), weights)[0]

    def _own(self, root: int) -> list[int]:
        if root not in self._owned:
            self._owned[root] = self.links.own(root)
        return self._owned[root]

    def about(self, value: Any) -> int | None:
        """The root row to which the first id in a value belongs; None when it holds none."""
        rows = (self.links.named.get(str(one)) for _, one in leaves(value))
        return next((self.links.owners[row] for row in rows if row in self.links.owners), None)

    def show(self, root: int | None, first: Sequence[int], tokens: int, rng: Random) -> Slice:
        """The excerpt around a root row; without one, the values outside of all tables. first: rows that come before all others.
        tokens: of the whole excerpt, about."""
        budget = tokens * BYTES_PER_TOKEN
        settings = dict(self._settings(budget * SETTINGS))
        if root is None:
            return Slice({}, _outside(settings), {}, {})
        own = dict.fromkeys(self._own(root))
        left = budget - self._size(root) - sum(map(size, settings.values()))
        chosen, skipped, level = {root: None}, dict[int, None](), [root]
        for row in first:
            if row not in chosen:
                chosen[row] = None
                level, left = [*level, row], left - self._size(row)
        while level:
            near = [row for row in self._near(level, own, rng) if row not in chosen and row not in skipped]
            level = self._fitting(near, left * SHARE)
            left -= sum(map(self._size, level))
            chosen.update(dict.fromkeys(level))
            skipped.update(dict.fromkeys(row for row in near if row not in chosen))
        chosen.update(dict.fromkeys(self._fitting(skipped, left)))
        return self._slice(root, list(chosen), own, settings, [row for row in skipped if row not in chosen], budget)

    def _near(self, level: Iterable[int], own: Mapping[int, None], rng: Random) -> list[int]:
        """The rows one step from these: those that belong to the root, tables in turn, then those that are referred to."""
        groups: tuple[dict[int, list[int]], dict[int, list[int]]] = (defaultdict(list), defaultdict(list))
        roots = self.links.roots
        for row in level:
            if row not in own and self.links.rows[row].table == roots:
                continue  # somebody else, whose things are nobody's business here
            belonging = [other for other in self.links.belongs.get(row, ()) if other in own] if row in own else []
            for other in dict.fromkeys((*belonging, *self.links.refers.get(row, ()))):
                groups[other not in own][self.links.rows[other].table].append(other)
        for group in groups:
            for rows in group.values():
                rng.shuffle(rows)
        turns = (chain.from_iterable(zip_longest(*group.values())) for group in groups)
        return list(dict.fromkeys(row for row in chain.from_iterable(turns) if row is not None))

    def _fitting(self, rows: Iterable[int], room: float) -> list[int]:
        """The rows that fit into so many bytes, in their order."""
        taken = []
        for row in rows:
            if room < NOTHING:
                break
            if (needed := self._size(row)) <= room:
                taken.append(row)
                room -= needed
        return taken

    def _size(self, row: int) -> int:
        if row not in self._sizes:
            self._sizes[row] = size(self.links.rows[row].value) + len(self.links.rows[row].key)
        return self._sizes[row]

    def _settings(self, room: float) -> Iterator[tuple[Place, Any]]:
        for place, value in self.settings.items():
            if value not in (None, "", [], {}) and (needed := size(value)) <= room:
                room -= needed
                yield place, value

    def _slice(
        self,
        root: int,
        chosen: Sequence[int],
        own: Mapping[int, None],
        settings: Mapping[Place, Any],
        left_out: Sequence[int],
        budget: int,
    ) -> Slice:
        rows, tables = self.links.rows, self.links.tables
        state = _outside(settings)
        mine: dict[str, list[Any]] = defaultdict(list)
        for number in sorted(chosen):
            row, table = rows[number], tables[rows[number].table]
            if number in own:
                mine[table.name].append(row.value)
            if number != root:
                state = _put(state, table.path if table.listed else (*table.path, row.key), [row.value] if table.listed else row.value)
        without = Counter(tables[rows[number].table].name for number in left_out)
        user = _shortened(rows[root].value, budget)
        if user is not rows[root].value:
            without[SHORTENED] = 1
        return Slice(user, state, mine, without)


def read(text: str, users: str, where: str) -> Reader:
    """Read a state (canonical JSON). users: dotted path of the table of users, "" to find the roots. Raises BadInput when there is
    none at that path."""
    state = cleaned(json.loads(text))
    named = tuple(users.split(".")) if users else None
    if named:
        _check_users(state, named, where)
    tables, settings = tables_of(state, LONGEST_ROW, named)
    return Reader(link(tables, named), settings)


def _check_users(state: Any, path: Place, where: str) -> None:
    users, found = ".".join(path), state
    for part in path:
        if not isinstance(found, dict) or part not in found:
            known = ", ".join(found) if isinstance(found, dict) else type(found).__name__
            raise BadInput(f"{where}: users = {users!r}: the state has no {part!r} there; it has: {known}.")
        found = found[part]
    if not found or not (isinstance(found, dict) or (isinstance(found, list) and all(isinstance(row, dict) for row in found))):
        raise BadInput(f"{where}: users = {users!r}: must be a table of the state (id -> row, or a list of rows) that is not empty.")


def _outside(settings: Mapping[Place, Any]) -> Any:
    state: Any = {}
    for place, value in settings.items():
        state = _put(state, place, value)
    return state


def _put(state: Any, place: Place, value: Any) -> Any:
    """The state with a value at a place; what is a list there gets longer."""
    if not place:
        return [*state, *value] if isinstance(value, list) and isinstance(state, list) else value if state in ({}, []) else state
    inside = state.get(place[0], {} if len(place) > 1 else None)
    if len(place) == 1 and isinstance(inside, list) and isinstance(value, list):
        return {**state, place[0]: [*inside, *value]}
    return {**state, place[0]: value if len(place) == 1 else _put(inside, place[1:], value)}


def _shortened(value: Any, most: int) -> Any:
    """The value itself if it fits, else with ever fewer entries in each of its lists and mappings, and shorter texts."""
    entries = 64
    shorter = value
    while size(shorter) > most and entries:
        entries //= 2
        shorter = _first(value, entries)
    return shorter


def _first(value: Any, entries: int) -> Any:
    if isinstance(value, dict):
        return {key: _first(item, entries) for key, item in list(value.items())[: max(1, entries)]}
    if isinstance(value, list):
        return [_first(item, entries) for item in value[:entries]]
    return value[: 16 * entries] if isinstance(value, str) else value
