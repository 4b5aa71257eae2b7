"""Edge cases that span two rows of one root: what they have (a card's balance) does not cover what something of theirs costs (the total
of an order), or only just does. Columns are found by their names, in any tables. Cost: the pairs of such rows of each root, once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tasks.worlds.adapters.context_links import Links, Place
from tasks.worlds.adapters.context_tables import ANY, ITEM, KEY, words_of

HAS = frozenset({"balance", "credit", "fund", "budget", "allowance", "point", "deposit", "remaining"})
COSTS = frozenset({"total", "price", "amount", "cost", "fee", "due", "fare", "charge"})
"""Words in the names of columns that say what somebody has, and what something costs; ours."""

Column = Sequence[tuple[int, Any]]
"""(row, value) of one place in the rows of one table."""
Pair = tuple[int, int, str]
"""(row that costs, row that has, why the two are an edge)."""


def uncovered(
    links: Links, owner: Mapping[int, int], values: Mapping[tuple[int, Place], Column], near: float, common: float
) -> Iterator[list[Pair]]:
    """Groups of pairs, each of one reason. owner: row -> its root. near: share of a cost up to which a difference is small.

    common: share of the pairs of two columns from which a reason is nothing special: then those alone count whose difference is small.
    """
    named = {at: _name(at[1]) for at in values}
    has = [at for at, name in named.items() if HAS & set(words_of(name))]
    costs = [at for at, name in named.items() if COSTS & set(words_of(name)) and at not in has]
    for one in has:
        held = _by_root(values[one], owner)
        for other in costs:
            pairs = [
                (row, holder, cost, amount)
                for root, priced in _by_root(values[other], owner).items()
                for row, cost in priced
                for holder, amount in held.get(root, ())
                if row != holder and cost > 0
            ]
            for which, words in ((_short, "does not cover"), (_covers, "only just covers")):
                found = [pair for pair in pairs if which(pair[2], pair[3], near)]
                if len(found) > common * len(pairs):
                    found = [pair for pair in found if abs(pair[2] - pair[3]) <= near * pair[2]]
                if 0 < len(found) <= common * len(pairs):
                    yield [
                        (row, holder, _why(links, pair, named[one], words, named[other]))
                        for pair in found
                        for row, holder in [pair[:2]]
                    ]


def _name(place: Place) -> str:
    return next((part for part in reversed(place) if part not in (KEY, ANY, ITEM)), "")


def _by_root(column: Column, owner: Mapping[int, int]) -> dict[int, list[tuple[int, float]]]:
    found: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for row, value in column:
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[owner[row]].append((row, value))
    return found


def _short(cost: float, amount: float, near: float) -> bool:
    return 0 <= amount < cost


def _covers(cost: float, amount: float, near: float) -> bool:
    return cost <= amount <= (1 + near) * cost


def _why(links: Links, pair: tuple[int, int, float, float], has: str, words: str, costs: str) -> str:
    row, holder, cost, amount = pair
    return f"{has} {amount:g} of {_called(links, holder)} {words} {costs} {cost:g} of {_called(links, row)}"


def _called(links: Links, row: int) -> str:
    return f"the row {links.rows[row].key!r} of {links.tables[links.rows[row].table].name or 'the state'}"
