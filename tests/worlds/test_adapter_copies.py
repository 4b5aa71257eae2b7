"""Copies row by row against copies of the whole: whatever methods do to an object, no fork, answer, hash or difference tells them apart.

Worked by hand: a call that is handed one row of a hundred pickles that row alone. Limit: with one object shared between two rows, both
are kept with the rest, and stay one object in every fork.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contract.problem import ToolResult
from tasks.worlds.adapters import copies, from_object
from tasks.worlds.adapters.copies import WITH_REST
from tasks.worlds.adapters.state_content import LEAST
from tasks.worlds.adapters.tracked_rows import Rows
from tasks.worlds.api.runtime import World

ROWS = LEAST + 2


class Line:
    def __init__(self, item: str) -> None:
        self.item, self.tags = item, [item]


class Shop:
    """Tables of plain and of other rows, one below an object, and things beside them."""

    def __init__(self) -> None:
        self.orders = {f"o{n}": {"id": n, "lines": [{"n": n}], "to": {"street": "x"}} for n in range(ROWS)}
        self.lines = {n: Line(f"i{n}") for n in range(ROWS)}
        self.deep = {"names": {f"k{n}": n for n in range(ROWS)}, "more": [1, {"a": 2}]}
        self.last: Any = None
        self.box: list[Any] = []

    def play(self, steps: list[list[int]]) -> Any:
        """Do things, one after the other."""
        return [DEEDS[deed % len(DEEDS)](self, one % ROWS, two % ROWS) for deed, one, two in steps]


def order(shop: Shop, n: int) -> Any:
    return shop.orders[f"o{n}"]


def failing(shop: Shop, one: int, two: int) -> Any:
    order(shop, one)["half"] = True
    shop.orders.pop(f"o{two}")
    shop.box.append("half")
    raise ValueError("in the middle")


def taken_twice(shop: Shop, one: int, two: int) -> Any:
    shop.orders[f"o{one}"] = order(shop, two)


def swapped(shop: Shop, one: int, two: int) -> Any:
    shop.orders[f"o{one}"], shop.orders[f"o{two}"] = order(shop, two), order(shop, one)


def moved_to_the_end(shop: Shop, one: int, two: int) -> Any:
    shop.orders[f"o{one}"] = shop.orders.pop(f"o{one}")


def every_second(shop: Shop, one: int, two: int) -> Any:
    for n, row in enumerate(shop.orders.values()):
        row["seen"] = n
        if n == one:
            break


def through_the_box(shop: Shop, one: int, two: int) -> Any:
    for held in shop.box:
        if isinstance(held, dict) and "id" in held:
            held["boxed"] = one


DEEDS: list[Any] = [
    lambda s, a, b: order(s, a).update(note=b),
    lambda s, a, b: order(s, a)["lines"].append({"n": b}),
    lambda s, a, b: order(s, a)["lines"][0].update(n=b),
    lambda s, a, b: s.orders.pop(f"o{a}", None) and None,
    lambda s, a, b: s.orders.__setitem__(f"new{a}", {"id": a, "lines": [], "to": {}}),
    lambda s, a, b: order(s, a).update(to=order(s, b)["to"]),
    lambda s, a, b: order(s, a)["to"].update(street=f"s{b}"),
    lambda s, a, b: setattr(s, "last", order(s, a)),
    lambda s, a, b: s.last and s.last.update(late=b),
    lambda s, a, b: s.box.append(order(s, a)),
    through_the_box,
    taken_twice,
    swapped,
    moved_to_the_end,
    every_second,
    failing,
    lambda s, a, b: setattr(s, "orders", dict(s.orders)),
    lambda s, a, b: setattr(s, "orders", {k: v for k, v in s.orders.items() if k != f"o{a}"}),
    lambda s, a, b: s.box.append(s.orders),
    lambda s, a, b: order(s, a).update(all=s.orders),
    lambda s, a, b: order(s, a).update(shop=s),
    lambda s, a, b: s.lines[a].tags.append(str(b)),
    lambda s, a, b: setattr(s.lines[a], "tags", s.lines[b].tags),
    lambda s, a, b: setattr(s.lines[a], "order", order(s, b)),
    lambda s, a, b: getattr(s.lines[a], "order", {}).update(via=b),
    lambda s, a, b: s.deep["names"].update({f"k{a}": b, f"j{b}": a}),
    lambda s, a, b: s.deep["names"].setdefault(f"k{a}x", b),
    lambda s, a, b: s.deep.update(names=s.deep["names"] | {"z": a}),
    lambda s, a, b: s.deep.update(other=s.deep["names"]),
    lambda s, a, b: s.deep["more"].append(copy.deepcopy(order(s, a))),
    lambda s, a, b: s.orders.clear() if a == b else None,
    lambda s, a, b: s.box.clear(),
    lambda s, a, b: setattr(s, "orders", s.deep["names"]) if a == b else None,
    lambda s, a, b: list(s.orders)[:3],
    lambda s, a, b: json.dumps([n for n, row in s.orders.items() if isinstance(row, dict) and "note" in row]),
    lambda s, a, b: [len(s.orders), f"o{a}" in s.orders, list(reversed(s.orders))[:2], s.orders == s.deep["names"]],
    lambda s, a, b: json.dumps(s.deep["names"], sort_keys=True),
]


def world(factory: Any = Shop, **more: Any) -> World:
    return World.build(from_object(factory, name="shop", policy="R1. Sell.", **{"writes": ("play",), **more}), 1, 0)


FAST, SLOW = world(), world(by_row=False)

STEP = st.tuples(
    st.integers(0, 2),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, len(DEEDS) - 1), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=4),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(STEP, min_size=1, max_size=8))
def test_row_by_row_is_as_whole(steps: list[Any]) -> None:
    """Three forks in turn; each step plays deeds, or goes back to the state that the step before left in any fork."""
    forks = [(FAST.fork(), SLOW.fork()) for _ in range(3)]
    kept = tuple(one.snapshot() for one in forks[0])
    for which, back, deeds in steps:
        fast, slow = forks[which]
        if back:
            fast.restore(kept[0])
            slow.restore(kept[1])
        arguments = {"steps": [list(deed) for deed in deeds]}
        assert fast.call("play", arguments) == slow.call("play", arguments)
        kept = fast.snapshot(), slow.snapshot()
        for one, other in forks:
            assert one.state.saved.text == other.state.saved.text
            assert one.state_hash() == other.state_hash() and one.diff() == other.diff()
            assert (one.diff() == "") == (one.state_hash() == FAST.state_hash())


def played(here: World, *deeds: tuple[Any, int, int]) -> ToolResult:
    return here.call("play", {"steps": [[DEEDS.index(deed), one, two] for deed, one, two in deeds]})


def test_a_call_pays_for_what_it_touches(monkeypatch: pytest.MonkeyPatch) -> None:
    here = world().fork()
    assert here.call("play", {"steps": [[0, 1, 1]]}).ok
    pickled: list[Any] = []
    true = copies.pickle.dumps
    monkeypatch.setattr(copies.pickle, "dumps", lambda value, protocol: pickled.append(value) or true(value, protocol))
    assert here.call("play", {"steps": [[0, 2, 7]]}).ok
    assert pickled == [{"id": 2, "lines": [{"n": 2}], "to": {"street": "x"}, "note": 7}]
    assert here.diff() == "+ orders.o1.note: 1\n+ orders.o2.note: 7"


def test_rows_that_share_an_object_stay_tied() -> None:
    here = world().fork()
    assert here.call("play", {"steps": [[5, 1, 2]]}).ok, "o1 goes where o2 goes"
    table = next(table for table in here.snapshot().token.tables if "o1" in table.base)
    assert [key for key, row in table.changed.items() if row is WITH_REST] == ["o1", "o2"] or {"o1", "o2"} == set(table.changed)
    other = here.fork()
    other.restore(here.snapshot())
    assert here.call("play", {"steps": [[0, 5, 5]]}).ok, "the object that held both is elsewhere now"
    assert other.call("play", {"steps": [[6, 1, 3]]}).ok
    assert (
        other.diff()
        == '- orders.o1.to.street: "x"\n+ orders.o1.to.street: "s3"\n- orders.o2.to.street: "x"\n+ orders.o2.to.street: "s3"'
    )


class Tied(Shop):
    def __init__(self) -> None:
        super().__init__()
        self.orders["o1"]["to"] = self.orders["o2"]["to"]
        self.last = self.orders["o3"]


def test_what_is_tied_at_the_start() -> None:
    fast, slow = world(Tied).fork(), world(Tied, by_row=False).fork()
    for deeds in ([[6, 1, 3]], [[8, 0, 9]], [[0, 3, 1]], [[0, 4, 1]]):
        assert fast.call("play", {"steps": deeds}) == slow.call("play", {"steps": deeds})
        assert fast.diff() == slow.diff() and fast.state_hash() == slow.state_hash()
    assert "orders.o2.to.street" in fast.diff() and "+ orders.o3.late: 9" in fast.diff() and "+ last.late: 9" in fast.diff()


def test_rows_are_a_dict() -> None:
    plain = {f"k{n}": [n] for n in range(4)}
    rows = Rows(0)
    for key, value in plain.items():
        rows.keep(key, value)
    assert not rows.touched and list(rows) == list(plain) and len(rows) == 4 and "k1" in rows and not rows.touched
    assert rows["k1"] == [1] and rows.get("k2") == [2] and rows.get("x", 5) == 5 and rows.touched == {"k1", "k2", "x"}
    for look in (
        lambda r: r == plain, lambda r: plain == r, lambda r: json.dumps(r) == json.dumps(plain), lambda r: {**r} == plain,
        lambda r: dict(r) == plain, lambda r: copy.copy(r) == plain, lambda r: type(copy.deepcopy(r)) is dict, lambda r: r | {} == plain,
        lambda r: {} | r == plain, lambda r: repr(r) == repr(plain), lambda r: list(r.values()) == list(plain.values()),
        lambda r: list(r.items()) == list(plain.items()), lambda r: r.copy() == plain, lambda r: dict(reversed(r.items())) == plain,
        lambda r: "{k1}".format_map(r) and [r[key] for key in plain], lambda r: [*map(r.keys().mapping.get, plain)],
    ):  # fmt: skip
        rows.forget()
        assert look(rows) and rows.touched == set(plain) and not rows.moved
    for change, moved in (
        (lambda r: r.update(k1=1), False), (lambda r: r.__ior__({"k9": 1}), True), (lambda r: r.setdefault("k0", 3), False),
        (lambda r: r.setdefault("k8", 3), True), (lambda r: r.pop("k8"), True), (lambda r: r.popitem(), True),
        (lambda r: r.__delitem__("k0"), True), (lambda r: r.clear(), True),
    ):  # fmt: skip
        before = dict.copy(rows)
        rows.forget()
        change(rows)
        assert (
            rows.moved == moved
            and {key for key in {*before, *dict.keys(rows)} if before.get(key) is not dict.get(rows, key)} <= rows.touched
        )
