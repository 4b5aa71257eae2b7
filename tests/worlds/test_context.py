"""What a generator is shown of a state: tables and foreign keys found by value, the excerpt around a root row, rows at a limit.

Worked by hand on a help desk: E2 has a laptop and two tickets; a ticket names its employee, its queue and its laptop. The excerpt of E2
holds all of those and nobody else's ticket. Limit: without any foreign key an excerpt is the root row alone.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contract.params import BadInput
from tasks.worlds.adapters import from_object
from tasks.worlds.adapters.context import SHORTENED, Reader, Slice, read
from tasks.worlds.adapters.context_tables import BYTES_PER_TOKEN, is_table, looks_like_id, size
from tasks.worlds.api.problem_making import Excerpt, user_context
from tasks.worlds.api.runtime import World
from tasks.worlds.api.state import canonical_json

POLICY = (
    "R1. An employee may have at most 4 open tickets.\nR2. Warranty ends 30 days after repair.\nR3. Refunds above $100 need a manager."
)
NEVER = Excerpt(edge_cases=0)


def desk() -> dict[str, Any]:
    """Nine employees; ticket T1n and T2n and laptop L5n belong to employee n; queues have small numbers as ids."""
    people = range(1, 10)
    tickets = [
        {"id": f"T{part}{n}", "employee": f"E{n}", "queue_id": part, "laptop": f"L5{n}", "status": "open", "note": f"see T{part}1"}
        for n in people
        for part in (1, 2)
    ]
    tickets[3]["status"] = "escalated"
    return {
        "(type)": "Desk",
        "today": "2026-03-01",
        "data": {
            "employees": {f"E{n}": {"name": f"Person {n}", "floor": n % 3, "__pydantic_fields_set__": ["name"]} for n in people},
            "laptops": {f"L5{n}": {"model": "A", "seats": n, "repaired": f"2026-01-{3 * n:02}"} for n in people},
            "tickets": tickets,
            "queues": {"(1)": {"title": "Hardware"}, "(2)": {"title": "Software"}, "(3)": {"title": "Access"}},
        },
        "settings": {"language": "en", "hours": {"from": "08:00", "to": "17:00"}},
    }


def reader(state: Any, users: str = "") -> Reader:
    return read(canonical_json(state), users, "here")


def shown(state: Any, user: str, tokens: int = 3000, seed: int = 0, users: str = "") -> Slice:
    made = reader(state, users)
    return made.show(made.links.people[user], (), tokens, Random(seed))


def test_by_hand() -> None:
    excerpt = shown(desk(), "E2")
    data = excerpt.state["data"]
    assert excerpt.user == {"name": "Person 2", "floor": 2}
    assert [row["id"] for row in data["tickets"]] == ["T12", "T22"] and list(data["laptops"]) == ["L52"]
    assert data["queues"] == {"1": {"title": "Hardware"}, "2": {"title": "Software"}}, "small numbers by the name queue_id alone"
    assert "employees" not in data and excerpt.state["today"] == "2026-03-01" and excerpt.left_out == {}
    assert {table: len(rows) for table, rows in excerpt.own.items()} == {"data.employees": 1, "data.laptops": 1, "data.tickets": 2}
    assert "__" not in json.dumps(excerpt.state) and "(type)" not in json.dumps(excerpt.state)


def test_foreign_keys_are_no_coincidences() -> None:
    links = reader(desk()).links
    names = [table.name for table in links.tables]
    pairs = {(names[links.rows[one].table], names[links.rows[other].table]) for one, others in links.refers.items() for other in others}
    assert pairs == {("data.tickets", "data.employees"), ("data.tickets", "data.queues"), ("data.tickets", "data.laptops")}, (
        "floor and seats hold numbers of queues, a note the words of a ticket's id"
    )


def test_nearest_first_within_the_budget() -> None:
    full = size(shown(desk(), "E2").state)
    for tokens in (200, 100, 60):
        excerpt = shown(desk(), "E2", tokens)
        assert size(excerpt.user) + size(excerpt.state) <= tokens * BYTES_PER_TOKEN + 120, "names of tables come on top"
        assert size(excerpt.state) <= full
    tight = shown(desk(), "E2", 110)
    assert tight.state["data"]["tickets"] and sum(tight.left_out.values()) > 0, "what did not fit is counted"
    huge = desk()
    huge["data"]["employees"]["E2"]["log"] = [f"entry {n}" for n in range(2000)]
    excerpt = shown(huge, "E2", 300)
    assert excerpt.left_out[SHORTENED] == 1 and size(excerpt.user) <= 900, "a root row beyond the budget is shortened, and that is said"


def test_other_peoples_rows_stay_out() -> None:
    """A product that many ordered leads to nobody's orders; a colleague named in a ticket is shown, and nothing of theirs."""
    state = {
        "customers": {f"C{n}1": {"name": "x", "referred_by": f"C{max(1, n - 1)}1"} for n in range(1, 7)},
        "orders": {f"O{n}7": {"customer_id": f"C{n}1", "items": [{"product": "P10"}, {"product": "P20"}]} for n in range(1, 7)},
        "products": {"P10": {"title": "mug", "maker": "M99"}, "P20": {"title": "pen", "maker": "M98"}, "P30": {"title": "cup"}},
        "makers": {"M98": {"city": "Rome"}, "M99": {"city": "Bern"}},
    }
    excerpt = shown(state, "C31")
    assert list(excerpt.state["orders"]) == ["O37"] and set(excerpt.state["products"]) == {"P10", "P20"}
    assert set(excerpt.state["makers"]) == {"M98", "M99"} and set(excerpt.state["customers"]) == {"C21"}


@pytest.mark.parametrize(
    ("state", "roots"),
    [
        ({"members": [{"no": f"m{n}1", "age": n} for n in range(4)]}, ["m01", "m11", "m21", "m31"]),
        (
            {"jobs": {f"J{n}1": {"site": f"S{n % 3}9"} for n in range(9)}, "sites": {f"S{n}9": {"x": 1} for n in range(3)}},
            ["S09", "S19", "S29"],
        ),
        ({f"k{n}1": 5 for n in range(4)}, ["k01", "k11", "k21", "k31"]),
        ({"scores": {"ann": 1, "bob": 2, "cy": 3}, "people": {n: {"age": 1} for n in ("ann", "bob", "cy")}}, ["ann", "bob", "cy"]),
        ({"口座": {f"番号{n}": {"残高": n} for n in range(3)}}, ["番号0", "番号1", "番号2"]),
        ({"config": {"main": {"a": 1}}}, []),
        ({"lines": [{"text": "a"}, {"text": "b"}, {"text": "c"}]}, []),
        ({"two": {"u1": {"a": 1}, "u2": {"a": 1}}}, []),
        ([], []),
        (None, []),
        ("opaque", []),
    ],
)
def test_whom_a_state_is_about(state: Any, roots: list[str]) -> None:
    """A table that is named as people are, else the one to which others belong; none with fewer rows than there are splits, or
    without ids."""
    assert list(reader(state).users) == roots


def test_the_table_of_users_is_named() -> None:
    assert list(reader(desk(), "data.queues").users) == ["1", "2", "3"]
    with pytest.raises(BadInput, match=r"here: users = 'data.folks': the state has no 'folks' there; it has: employees, laptops"):
        reader(desk(), "data.folks")
    with pytest.raises(BadInput, match="must be a table of the state"):
        reader(desk(), "today")


def test_edge_cases_say_why() -> None:
    state = desk()
    state["data"]["tickets"] += [{**state["data"]["tickets"][0], "id": f"T{n}9", "employee": "E9", "fee": 100} for n in (3, 4)]
    state["data"]["tickets"] = [{"fee": 7, **row} for row in state["data"]["tickets"]]
    made = reader(state)
    users = made.links.people
    reasons = {made.choose(users, POLICY, Excerpt(edge_cases=1), Random(seed))[::2] for seed in range(200)}
    assert ("E2", "the row 'T22' of data.tickets has status 'escalated', which 1 of 20 have") in reasons
    assert any(user == "E9" and "has 4 rows of data.tickets, and the policy says: An employee may have" in why for user, why in reasons)
    assert any("repaired 2026-01-27 00:00:00, and the policy speaks of 30 days" in why for _, why in reasons), "today is in the state"
    assert not any("seats" in why or "floor" in why for _, why in reasons), "numbers that no sentence is about"
    assert {made.choose(users, POLICY, NEVER, Random(seed))[2] for seed in range(50)} == {""}
    for seed in range(50):
        user, rows, _ = made.choose({name: users[name] for name in ("E2", "E9")}, POLICY, Excerpt(edge_cases=1), Random(seed))
        assert user in ("E2", "E9") and rows and all(made.links.owners[row] == made.links.people[user] for row in rows)


def test_a_status_that_the_policy_names_is_an_edge() -> None:
    """Two of ten tickets wait, and two are parked: neither is rare, and a sentence about the status names one of them."""
    states = ["open"] * 6 + ["on_hold"] * 2 + ["parked"] * 2
    tickets = {f"T{n}7": {"customer_id": f"C{n % 5}1", "status": states[n], "colour": states[9 - n]} for n in range(10)}
    made = reader({"customers": {f"C{n}1": {"age": 30} for n in range(5)}, "tickets": tickets})
    policy = "R1. Be kind to open and parked people.\nR2. A ticket is closed only while its status is open, never when it is On Hold."
    found = {made.choose(made.links.people, policy, Excerpt(edge_cases=1), Random(seed))[2] for seed in range(40)}
    says = "has status 'on_hold', which 2 of 10 have, and the policy says: A ticket is closed only while its status is open, never when"
    assert found and all(says in why for why in found), "not the colour, nor a status of which no sentence about it speaks"


def test_an_edge_of_two_rows_is_shown_whole() -> None:
    """One of ten cards does not cover its customer's order and one only just does; where half do not, those that nearly do count."""
    state: dict[str, Any] = {
        "customers": {f"C{n}1": {"name": f"Person {n}"} for n in range(10)},
        "cards": {f"K{n}2": {"customer_id": f"C{n}1", "balance": 500} for n in range(10)},
        "orders": {f"O{n}3": {"customer_id": f"C{n}1", "total": 100, "items": [{"sku": "x"}] * 60} for n in range(10)},
    }
    state["cards"]["K22"]["balance"], state["cards"]["K32"]["balance"] = 40, 105
    made = reader(state)
    users = made.links.people
    drawn = {made.choose(users, "", Excerpt(edge_cases=1), Random(seed)) for seed in range(60)}
    said = {(user, why) for user, _, why in drawn if "cover" in why}
    assert said == {
        ("C21", "balance 40 of the row 'K22' of cards does not cover total 100 of the row 'O23' of orders"),
        ("C31", "balance 105 of the row 'K32' of cards only just covers total 100 of the row 'O33' of orders"),
    }
    (rows,) = {rows for user, rows, why in drawn if "does not cover" in why}
    excerpt = made.show(users["C21"], rows, 300, Random(0))
    assert list(excerpt.state["orders"]) == ["O23"] and list(excerpt.state["cards"]) == ["K22"], "both, however large the first is"
    for n in range(5, 10):
        state["cards"][f"K{n}2"]["balance"] = 1 if n < 9 else 95
    made = reader(state)
    found = {made.choose(users, "", Excerpt(edge_cases=1), Random(seed))[2] for seed in range(60)}
    assert {why for why in found if "does not cover" in why} == {
        "balance 95 of the row 'K92' of cards does not cover total 100 of the row 'O93' of orders"
    }


class Desk:
    """The help desk as an object."""

    def __init__(self) -> None:
        self.today, self.data = "2026-03-01", desk()["data"]
        self.data["queues"] = {1: {"title": "Hardware"}, 2: {"title": "Software"}, 3: {"title": "Access"}}

    def close(self, ticket: str) -> str:
        """Close a ticket."""
        next(row for row in self.data["tickets"] if row["id"] == ticket)["status"] = "closed"
        return "closed"


def test_a_world_without_a_table_of_users_has_lineages() -> None:
    """Its users are the root rows; splits go by them, and each split's contexts are about its own."""
    world = World.build(from_object(Desk, name="desk", policy=POLICY, writes=("close",)), 1, 0)
    assert set(world.splits) == {f"E{n}" for n in range(1, 10)} and set(world.splits.values()) == {"train", "validation", "test"}
    for split in ("train", "validation", "test"):
        for seed in range(20):
            data = user_context(world, Random(seed), split, Excerpt(edge_cases=0.5))
            assert world.splits[data["user_id"]] == split and json.loads(json.dumps(data)) == data
            assert {row["employee"] for row in data["state"]["data"]["tickets"]} == {data["user_id"]}
            assert user_context(world, Random(seed), split, Excerpt(edge_cases=0.5)) == data, "the same seed, the same context"
    chosen = [user_context(world, Random(seed), "train", Excerpt(edge_cases=1)) for seed in range(20)]
    assert all(data["chosen_because"] for data in chosen)


def test_a_lineage_of_a_given_problem_is_shown_its_customer(tmp_path: Path) -> None:
    """Whom the problem's calls are about, where the file names no user."""
    lines = [{"instruction": f"Close T1{n}.", "actions": [{"name": "close", "arguments": {"ticket": f"T1{n}"}}]} for n in range(1, 7)]
    (tmp_path / "problems.jsonl").write_text("\n".join(map(json.dumps, lines)))
    made = from_object(Desk, name="desk", policy=POLICY, writes=("close",), problems_file=tmp_path / "problems.jsonl")
    world = World.build(made, 1, 0)
    for seed in range(10):
        data = user_context(world, Random(seed), "train")
        ticket = data["given"][0]["actions"][0]["arguments"]["ticket"]
        assert data["user"]["name"] == f"Person {ticket[2:]}" and ticket in json.dumps(data["state"])
    chosen = [user_context(world, Random(seed), "train", Excerpt(edge_cases=1)) for seed in range(10)]
    assert all("chosen_because" in data and data["given"] for data in chosen)


VALUES = st.none() | st.booleans() | st.integers(0, 5) | st.sampled_from(["u1", "u2", "open", "see u1", "", "Ω7", "2026-01-01"])
NAMES = st.sampled_from(["id", "u1", "u2", "Ω7", "name", "user_id", "items", "(1)", "(type)", "__pydantic_fields_set__", "a.b"])
STATES = st.recursive(VALUES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=40)


@settings(max_examples=200, deadline=None)
@given(STATES, st.integers(0, 3), st.sampled_from([20, 200, 3000]))
def test_any_state(state: Any, seed: int, tokens: int) -> None:
    """Whatever a state looks like: JSON, the same again, whole rows, within the budget, nothing of a framework's."""
    made = reader(state)
    assert made.users == reader(state).users
    for user, root in made.links.people.items():
        excerpt = made.show(root, (), tokens, Random(seed))
        text = json.dumps([excerpt.user, excerpt.state])
        assert text == json.dumps([(again := made.show(root, (), tokens, Random(seed))).user, again.state])
        assert "__pydantic" not in text and "(type)" not in text
        assert all(row in [one.value for one in made.links.rows] for rows in excerpt.own.values() for row in rows)
        assert SHORTENED in excerpt.left_out or excerpt.user == made.links.rows[root].value
        made.choose({user: root}, POLICY, Excerpt(edge_cases=1), Random(seed))


@given(st.integers(1, 30), st.integers(0, 9))
def test_rows_that_refer_to_each_other_in_circles(count: int, seed: int) -> None:
    state = {
        "users": {f"u{n}": {"next": f"n{n}"} for n in range(3)},
        "nodes": {f"n{n}": {"next": f"n{(n + 1) % count}"} for n in range(count)},
    }
    made = reader(state)
    for root in made.links.people.values():
        excerpt = made.show(root, (), 3000, Random(seed))
        assert len(excerpt.state.get("nodes", {})) <= count


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"u1": {}, "u2": 3}, True),
        ({"name": {"first": "a"}, "address": {"city": "b"}}, False),
        ({"ann": {"id": "ann"}}, True),
        ({"main": {"size": 3}}, False),
        ({"a": {"x": 1}, "b": {"x": 2}, "c": {"x": 3}}, True),
        ({"users": {"u1": {"a": 1}}, "orders": {"u1": {"a": 1}}, "more": {"u1": {"a": 1}}}, False),
        ([{"text": "a"}, {"text": "b"}], True),
        ([{"text": "a"}, 3], False),
        ([1, 2], False),
        ({}, False),
    ],
)
def test_what_is_a_table(value: Any, expected: bool) -> None:
    assert is_table(value) is expected


@pytest.mark.parametrize("value", ["W1", "#W7678072", "9523456873", "a@b.c", "番号1", "paypal_57"])
def test_ids(value: str) -> None:
    assert looks_like_id(value)


@pytest.mark.parametrize("value", ["pending", "12", "3", "12.50", "2026-01-01", "08:00", "", "1", "x" * 90])
def test_no_ids(value: str) -> None:
    assert not looks_like_id(value)


def test_a_large_state_is_read_once() -> None:
    """6 MB: some seconds once on a busy machine, then milliseconds a context."""
    state = {
        "users": {f"u{n:05}": {"name": "x" * 50, "cards": {f"card_{n}": {"kind": "visa"}}} for n in range(10_000)},
        "orders": {f"o{n:05}": {"user_id": f"u{n % 10_000:05}", "pay": f"card_{n % 10_000}", "text": "y" * 100} for n in range(20_000)},
    }
    made = reader(state)
    start = time.process_time()
    for seed in range(50):
        excerpt = made.show(made.links.people[f"u{seed:05}"], (), 3000, Random(seed))
        assert len(excerpt.state["orders"]) == 2
    assert (time.process_time() - start) / 50 < 0.02
