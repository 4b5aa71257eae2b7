"""Worlds out of tables and a function that runs tools on them: `from_tables`."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tasks.contract.params import BadInput
from tasks.worlds.adapters.problem_file import Line, Step, row_problem
from tasks.worlds.adapters.tables import from_tables
from tasks.worlds.api.frozen import freeze_world, load
from tasks.worlds.api.runtime import World

ROWS: dict[str, Any] = {
    "users": {"ann": {"name": "Ann", "orders": ["W1"]}, "bob": {"name": "Bob", "orders": []}},
    "orders": {"W1": {"status": "open", "items": [{"id": 1, "price": 2.5}]}},
}
HELD: list[Any] = []


def run(tables: Any, tool: str, arguments: dict[str, Any]) -> Any:
    """A small shop, as somebody may have written it who knows nothing of Cairn."""
    if tool == "find":
        return next(key for key, user in tables["users"].items() if user["name"] == arguments["name"])
    if tool == "peek":
        order = tables["orders"][arguments["order"]]
        order["items"].append("seen")  # of its own copy
        return order
    if tool == "spoil":
        tables["orders"]["W9"] = {"status": "new"}
        return "spoiled"
    if tool == "buy":
        number = f"W{len(tables['orders']) + 1}"
        tables["users"][arguments["user"]]["orders"].append(number)
        tables["orders"][number] = {"status": "open", "items": []}
        HELD.append(tables["orders"][number])
        if arguments.get("fail"):
            raise ValueError("no money")
        return {"order": number, "all": [key for key in tables["orders"]]}
    if tool == "forget":
        del tables["orders"][arguments["order"]]
        return arguments["order"] in tables["orders"]
    return "a person will call"


def tool(name: str, *arguments: str, **optional: str) -> dict[str, Any]:
    properties = {**{one: {"type": "string"} for one in arguments}, **{one: {"type": kind} for one, kind in optional.items()}}
    schema = {"type": "object", "properties": properties, "required": list(arguments), "additionalProperties": False}
    return {"name": name, "description": f"{name} it.", "inputSchema": schema}


LISTED = [
    *(tool("find", "name"), tool("peek", "order"), tool("spoil"), tool("buy", "user", fail="boolean")),
    *(tool("forget", "order"), tool("hand_over")),
]


def line(number: int, *actions: Step, **more: Any) -> Line:
    return Line(instruction=f"wish {number}", actions=actions, user=f"task_{number}", **more)


BUY, FAIL = Step(name="buy", arguments={"user": "ann"}), Step(name="buy", arguments={"user": "ann", "fail": True}, refused=True)
LINES = (
    line(0, Step(name="find", arguments={"name": "Zoe"}, refused=True), BUY, split="train"),
    line(1, BUY, FAIL, split="test"),
    line(2, FAIL, split="test"),
    line(3, split="test"),
)


class Shop(  # at the top of a module, as worlds are: a frozen one names it
    from_tables(  # type: ignore[misc]
        lambda: copy.deepcopy(ROWS), run, LISTED, name="shop", policy="", writes=("buy", "forget"), ends=("hand_over",), problems=LINES
    )
):
    """The shop."""


def built(*lines: Line) -> World:
    made = from_tables(lambda: copy.deepcopy(ROWS), run, LISTED, name="shop", policy="", writes=("buy", "forget"), problems=lines)
    return World.build(made, 1, 0)


@pytest.fixture
def shop() -> World:
    return World.build(Shop, 1, 0, f"{__name__}:Shop").fork()


def test_tools_work_on_copies_and_what_they_change_is_the_state(shop: World) -> None:
    start = shop.state_hash()
    assert shop.call("find", {"name": "Bob"}).content == "bob"
    assert json.loads(shop.call("peek", {"order": "W1"}).content)["items"] == [{"id": 1, "price": 2.5}, "seen"]
    assert shop.state_hash() == start, "what a look-up does to its copies is nobody's"
    assert json.loads(shop.call("buy", {"user": "ann"}).content) == {"order": "W2", "all": ["W1", "W2"]}
    assert (
        shop.diff() == '+ orders W2 items: []\n+ orders W2 status: "open"\n- users ann orders: ["W1"]\n+ users ann orders: ["W1","W2"]'
    )
    bought, saved = shop.state_hash(), shop.snapshot()
    HELD[-1]["status"] = "changed behind its back"
    assert shop.state_hash() == bought
    assert shop.call("forget", {"order": "W2"}).content == "false"
    shop.restore(saved)
    assert shop.state_hash() == bought
    shop.reset()
    assert shop.state_hash() == start


def test_a_call_that_is_refused_or_writes_without_saying_so_changes_nothing(shop: World) -> None:
    start = shop.state_hash()
    assert shop.call("buy", {"user": "ann", "fail": True}).content == '{"error": "no money"}'
    assert shop.call("peek", {"order": "W7"}).content == '{"error": "\'W7\'"}'
    assert "PermissionError: a tool that is not a write tried to change orders W9" in shop.call("spoil", {}).content
    assert shop.call("buy", {"user": 3}).content.startswith('{"error": "argument')
    assert shop.state_hash() == start and not shop.diff()


def test_problems_keep_the_splits_that_they_name_and_refused_writes_are_no_writes(shop: World) -> None:
    assert shop.splits == {"task_0": "train", "task_1": "test", "task_2": "test", "task_3": "test"}
    found = [row_problem(shop, row) for row in shop.shared.base.tables["problems"].values()]
    assert [[action.kind for action in problem.actions] for problem in found] == [["read", "write"], ["write", "read"], ["read"], []]
    assert [problem.family for problem in found] == ["one_write", "one_write", "information", "information"]
    assert [problem.passive for problem in found] == [False, False, True, True]


def test_lines_of_one_user_in_two_splits_are_refused() -> None:
    lines = (line(0, BUY, split="train"), line(0, BUY, split="test"), line(1, BUY, split="test"))
    with pytest.raises(BadInput, match=r"line 2: split 'test', and user 'task_0' is in 'train' by line 1"):
        built(*lines)
    with pytest.raises(BadInput, match=r"line 1: .*action 1 buy is to be refused, and the world answers it"):
        built(line(0, BUY.model_copy(update={"refused": True}), split="train"))


def test_frozen_it_is_the_same(shop: World, tmp_path: Path) -> None:
    freeze_world(shop, tmp_path / "shop")
    again = load(tmp_path / "shop")
    assert (again.state_hash(), again.splits) == (shop.fork().state_hash(), shop.splits)
    assert again.call("buy", {"user": "bob"}).ok and again.state_hash() != shop.fork().state_hash()
