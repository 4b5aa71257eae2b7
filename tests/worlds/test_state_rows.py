"""States that come as one JSON value are shown and hashed row by row, and say what they would say as a whole.

Worked by hand: of twenty orders one is cancelled, so one row is new and one line tells it. Limit: true is not 1, and names in another
order are no change.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from tasks.worlds.adapters.plain_data import View
from tasks.worlds.adapters.state_content import Content, text_diff
from tasks.worlds.adapters.state_rows import StatesByRow
from tasks.worlds.api.state import canonical_json


def shop() -> dict[str, Any]:
    orders = {f"W{number}": {"status": "pending", "paid": 1, "lines": [{"item": "pen"}]} for number in range(20)}
    return {"orders": orders, "deep": {"people": {f"({n})": {"at": n} for n in range(18)}}, "few": {"a": 1}, "open": True}


def whole(value: Any, view: View) -> Content:
    return Content(canonical_json(view.plain(value)))


def test_by_hand() -> None:
    shown, after = StatesByRow(View()), shop()
    start = shown.content(shop())
    assert set(start.tables) == {("orders",), ("deep", "people")} and json.loads(start.frame)["orders"] == {}
    after["orders"]["W7"]["status"] = "cancelled"
    now = shown.content(after)
    old, new = start.tables["orders",], now.tables["orders",]
    assert set(new.changed) == {"W7"} and new.base is old.base and now.tables["deep", "people"] is start.tables["deep", "people"]
    assert text_diff(start, now) == '- orders.W7.status: "pending"\n+ orders.W7.status: "cancelled"'
    assert now.number == whole(after, View()).number != start.number and start.same(shown.content(shop()))


def test_what_is_no_change_and_what_is() -> None:
    shown, other, true = StatesByRow(View()), shop(), shop()
    start = shown.content(shop())
    other["orders"] = {key: dict(reversed(row.items())) for key, row in other["orders"].items()}
    assert not shown.content(other).tables["orders",].changed and shown.content(other).number == start.number
    true["orders"]["W0"]["paid"] = True
    assert text_diff(start, shown.content(true)) == "- orders.W0.paid: 1\n+ orders.W0.paid: true"
    gone = {**shop(), "orders": [1, 2]}
    assert shown.content(gone).number == whole(gone, View()).number and not start.same(shown.content(gone))


@pytest.mark.parametrize(
    "view", [View(), View(("paid", "orders.W3")), View(("deep",)), View(("orders.*.lines",), rounded=(("orders.*.paid", 0.5),))]
)
def test_the_same_as_a_whole(view: View) -> None:
    """Random changes, one on another: number, text and difference are those of the state looked at at once."""
    rng, shown, value = Random(3), StatesByRow(view), shop()
    states = [(shown.content(json.loads(json.dumps(value))), whole(value, view))]
    for step in range(60):
        table = rng.choice((value["orders"], value["deep"]["people"]))
        key = rng.choice([*table, f"N{step}"])
        if key in table and rng.random() < 0.3:
            del table[key]
        else:
            table[key] = {"status": rng.choice(("sent", "pending", 1, True, 1.0)), "paid": rng.random()}
        value["few"]["a"] = rng.randrange(3)
        now = shown.content(json.loads(json.dumps(value))), whole(value, view)
        before = rng.choice(states)
        assert (now[0].number, now[0].text) == (now[1].number, now[1].text)
        assert now[0].same(before[0]) == now[1].same(before[1]) and text_diff(before[0], now[0]) == text_diff(before[1], now[1])
        states.append(now)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({"log": "a\nb\nc"}, {"log": "a\nB\nc"}, '- log line 2: "b"\n+ log line 2: "B"'),
        ({"log": "a\nb"}, {"log": "a\nb\nc"}, '+ log line 3: "c"'),
        ("a\nb", "b", '- line 1: "a"'),
        ("a", "b", '- state: "a"\n+ state: "b"'),
        ([1, 2, 3, 4], [0, 1, 2, 3, 4], "+ [0]: 0"),
        ([{"id": 1}, {"id": 2}, {"id": 3}], [{"id": 1}, {"id": 3}], '- [1]: {"id":2}'),
        ([1, 2, 3], [1, True, 3], "- [1]: 2\n+ [1]: true"),
        ([1], [True], "- [0]: 1\n+ [0]: true"),
    ],
)
def test_texts_and_lists_are_told_by_what_differs(before: Any, after: Any, told: str) -> None:
    assert text_diff(canonical_json(before), canonical_json(after)) == told
