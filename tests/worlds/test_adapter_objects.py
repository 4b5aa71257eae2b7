"""Plain objects as worlds: state, snapshots and refusals of something that knows nothing of Cairn.

Worked by hand on the kiosk: cancelling W1 changes one attribute, and the difference says so; a method that fails half-way leaves
nothing; a counter that is left out may be touched by a look-up. Limit: a fork that is not played costs no object.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contract.params import BadInput
from tasks.contract.problem import Action, Problem, ToolResult
from tasks.contract.trajectory import Trajectory
from tasks.worlds.api.frozen import freeze_world, load
from tasks.worlds.api.play import TOOL_FAILURE
from tasks.worlds.api.problem_making import draw_problems
from tasks.worlds.api.runtime import World
from tests.worlds.kiosk import WRITES, Adapted, Kiosk, adapted

PENDING = '- _orders.(1).status: "pending"\n+ _orders.(1).status: "cancelled"'


def world(**changes: Any) -> World:
    return World.build(adapted(**changes), 1, 0)


def said(result: ToolResult) -> str:
    return str(json.loads(result.content)["error"])


def test_by_hand() -> None:
    here = world()
    start = here.state_hash()
    assert here.call("cancel_order", {"order_id": "W1"}) == ToolResult(True, "cancelled")
    assert here.diff() == PENDING and here.state_hash() != start
    order = {"order_id": "W1", "total": 11, "status": "cancelled", "tags": [], "due": "2026-01-05"}
    assert json.loads(here.call("get_order", {"order_id": "W1"}).content) == order
    assert here.diff() == PENDING, "the counter of look-ups is left out"
    here.reset()
    assert here.state_hash() == start == world().state_hash() and here.diff() == ""


def test_arguments_become_what_the_method_wants() -> None:
    here = world()
    result = here.call("tag", {"order_id": "W2", "tags": ["b", "a"], "more": {"x": [1, None]}, "size": "l"})
    assert json.loads(result.content) == {"tags": ["a", "b"], "more": {"x": [1, None]}, "size": "l"}
    assert here.call("move", {"order_id": "W2", "due": "2026-02-03"}).content == "2026-02-03"
    assert here.diff().splitlines()[0] == '- _orders.(2).due: "2026-01-05"'


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("get_order", {"order_id": "W9"}, "KeyError: 'W9'"),
        ("cancel_order", {"order_id": "W1", "reason": "none"}, "ValueError: there must be a reason"),
        ("broken", {}, "out of paper"),
        ("leave", {}, "SystemExit: 3"),
        ("cancel_order", {"order_id": 1}, "argument 'order_id' must be a string"),
        ("tag", {"order_id": "W1", "tags": [1]}, "argument 'tags' at [0] is wrong: Input should be a valid string, got 1"),
        ("move", {"order_id": "W1", "due": "soon"}, "argument 'due' is wrong: Input should be a valid date"),
        ("_find", {"order_id": "W1"}, "no tool '_find'"),
    ],
)
def test_what_fails_is_refused_and_leaves_nothing(name: str, arguments: Any, says: str) -> None:
    here = world()
    here.call("get_order", {"order_id": "W1"})
    before = here.snapshot()
    result = here.call(name, arguments)
    assert not result.ok and says in said(result) and here.snapshot() == before
    assert not result.content.startswith(TOOL_FAILURE), "what the object says is an answer, no failure of a tool"


def test_a_look_up_that_writes_is_named() -> None:
    here = world()
    result = here.call("sly", {})
    assert result.content.startswith(TOOL_FAILURE) and "tool 'sly' is not declared to write and changed the state" in result.content
    assert "_orders.(0).status" in result.content and "Name it in 'writes'" in result.content and here.diff() == ""
    assert world(writes=("cancel_order", "tag", "move", "sly")).call("sly", {}).ok
    changed = World.build(adapted(leave_out=()), 1, 0).call("get_order", {"order_id": "W1"})
    assert "- _looks: 0; + _looks: 1" in said(changed)


def test_forks_are_apart_and_snapshots_travel() -> None:
    one = world()
    two = one.fork()
    kept = []
    for step in range(4):
        one.call("cancel_order", {"order_id": f"W{step}"})
        two.call("tag", {"order_id": f"W{step}", "tags": ["x"]})
        kept.append((one.snapshot(), one.state_hash()))
    assert "cancelled" not in two.diff() and "tags" not in one.diff()
    for snapshot, digest in kept:
        two.restore(snapshot)
        assert two.state_hash() == digest
    two.restore(kept[0][0])
    assert two.call("cancel_order", {"order_id": "W1"}).ok and two.state_hash() == kept[1][1]
    assert one.state_hash() == kept[3][1]


STEPS = st.lists(
    st.tuples(st.sampled_from(["cancel_order", "tag", "get_order", "broken"]), st.integers(0, 7), st.booleans()), max_size=8
)


@settings(deadline=None)
@given(steps=STEPS, cut=st.integers(0, 8))
def test_a_snapshot_is_a_place_to_come_back_to(steps: list[tuple[str, int, bool]], cut: int) -> None:
    """Played straight, or from a snapshot in another fork after something else: the same state and answers."""

    def play(here: World, some: list[tuple[str, int, bool]]) -> list[ToolResult]:
        more = {"tag": {"tags": ["x"]}}
        arguments = [{} if name == "broken" else {"order_id": f"W{number}", **more.get(name, {})} for name, number, _ in some]
        return [here.call(step[0], one) for step, one in zip(some, arguments, strict=True)]

    straight, bent, other = SHARED.fork(), SHARED.fork(), SHARED.fork()
    answers = play(straight, steps)
    first = play(bent, steps[:cut])
    other.call("tag", {"order_id": "W5", "tags": ["other"]})
    other.restore(bent.snapshot())
    assert first + play(other, steps[cut:]) == answers and other.state_hash() == straight.state_hash()
    assert other.diff() == straight.diff()


SHARED = world()


def problem(*actions: Action) -> Problem:
    return Problem("p", "kiosk", "train", "one_write", ("u0",), "", "", {}, actions)


def test_grading() -> None:
    here = world()
    wanted = problem(Action("get_order", {"order_id": "W1"}), Action("cancel_order", {"order_id": "W1"}, "write"))
    final = here.fork()
    assert here.grade(Trajectory(wanted, 0), final).state == 0
    final.call("cancel_order", {"order_id": "W1"})
    assert here.grade(Trajectory(wanted, 0), final).state == 1, "one look-up less is the same state"
    final.call("cancel_order", {"order_id": "W2"})
    assert here.grade(Trajectory(wanted, 0), final).state == 0


class Two:
    """Two services that know each other."""

    class_wide = 1

    def __init__(self, kiosk: Kiosk) -> None:
        self.kiosk, self.sent = kiosk, 0

    def send(self, order_id: str) -> str:
        """Send an order."""
        self.sent += 1
        self.kiosk._find(order_id).status = "sent"
        return "sent"

    @staticmethod
    def fee(weight: float) -> float:
        """What sending costs."""
        return 2 * weight

    @property
    def trap(self) -> str:
        raise AssertionError("properties are not looked at")


def both() -> dict[str, Any]:
    kiosk = Kiosk()
    return {"kiosk": kiosk, "post": Two(kiosk)}


def test_several_objects_stay_tied_together() -> None:
    """What one service changes in the other must not be lost when the state is copied."""
    here = world(factory=both, writes=(*WRITES, "send"))
    assert here.call("send", {"order_id": "W1"}).ok and here.call("fee", {"weight": 1.5}) == ToolResult(True, "3.0")
    other = here.fork()
    other.restore(here.snapshot())
    assert json.loads(other.call("get_order", {"order_id": "W1"}).content)["status"] == "sent"
    assert other.call("send", {"order_id": "W2"}).ok
    assert json.loads(other.call("get_order", {"order_id": "W2"}).content)["status"] == "sent"
    assert "post.sent" in other.diff() and "kiosk._orders.(2).status" in other.diff()


class Locked(Kiosk):
    """Holds what cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def dump(live: Locked) -> Any:
    return {"status": {f"W{number}": order.status for number, order in live._orders.items()}}


def bring(live: Locked, value: Any) -> None:
    for name, status in value["status"].items():
        live._find(name).status = status


def test_snapshot_and_restore_by_hand() -> None:
    here = world(factory=Locked, snapshot=dump, restore=bring, leave_out=())
    assert here.call("cancel_order", {"order_id": "W1"}).ok
    assert here.diff() == '- status.W1: "pending"\n+ status.W1: "cancelled"'
    other = here.fork()
    other.restore(here.snapshot())
    assert other.call("cancel_order", {"order_id": "W2"}).ok and other.diff().count("cancelled") == 2
    with pytest.raises(BadInput, match=r"world kiosk: snapshot\(\) must give JSON: "):
        world(factory=Locked, snapshot=lambda live: {1j}, restore=bring)
    with pytest.raises(BadInput, match=r"snapshot and restore go together"):
        world(factory=Locked, snapshot=dump)


class Chancy(Kiosk):
    def __init__(self) -> None:
        super().__init__()
        self.token = random.SystemRandom().random()


class Handle(Kiosk):
    def __init__(self) -> None:
        super().__init__()
        self.names = {"first": [Kiosk.get_order]}


def test_objects_that_are_no_state_are_named() -> None:
    with pytest.raises(BadInput, match=r"factory\(\) makes a different state each time \(- token: 0\..*leave_out"):
        world(factory=Chancy)
    assert world(factory=Chancy, leave_out=("token", "_looks")).diff() == ""
    with pytest.raises(BadInput, match=r"its state cannot be copied .*lock.*give snapshot= and restore="):
        world(factory=Locked)
    with pytest.raises(BadInput, match=r"world kiosk: names.first\[0\] holds a function, which is no data. Name it in leave_out"):
        world(factory=Handle)
    with pytest.raises(BadInput, match=r"factory\(\) failed: ZeroDivisionError"):
        world(factory=lambda: 1 / 0)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"writes": ("cancel_oder",)}, "writes names 'cancel_oder'. Did you mean 'cancel_order'?"),
        ({"writes": "cancel_order"}, "writes = 'cancel_order' is one text; write ('cancel_order',)"),
        ({"tools": ("get_order",), "writes": (), "ends": ("call_a_person",)}, "ends names 'call_a_person'"),
        ({"tools": ("get_orders",)}, "tools names 'get_orders'. Did you mean 'get_order'?"),
        ({"tools": (), "writes": (), "ends": ()}, "there is no tool to offer"),
        ({"produces": {"look": ("id",)}}, "produces names 'look'"),
        ({"types": {"get_order.id": str}}, "types names its argument 'id'; its arguments: order_id"),
        (
            {"types": {"get_orde.order_id": str}},
            "types names 'get_orde.order_id', which is no tool.argument. Did you mean 'get_order'?",
        ),
        ({"factory": lambda: {"a": Kiosk(), "b": Kiosk()}}, "b and another one both have a method 'get_order'"),
        ({"users": "people"}, "users = 'people': the state has no 'people' there; it has: _orders, _users"),
        ({"users": "_users.u0.orders"}, "must be a table of the state (id -> row, or a list of rows)"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput) as caught:
        world(**changes)
    assert says in str(caught.value) and "world kiosk" in str(caught.value)


def test_the_choice_of_tools() -> None:
    here = world(tools=("get_order", "cancel_order"), writes=("cancel_order",), ends=(), types={"get_order.order_id": str})
    assert {name: tool.kind for name, tool in here.tools.items()} == {"get_order": "read", "cancel_order": "write"}
    assert here.tools["get_order"].parameters["properties"] == {"order_id": {"type": "string"}}
    assert not here.call("sly", {}).ok


def test_frozen_and_loaded(tmp_path: Any) -> None:
    built = World.build(Adapted, 1, 0, "tests.worlds.kiosk:Adapted")
    freeze_world(built, tmp_path / "kiosk")
    loaded = load(tmp_path / "kiosk")
    assert loaded.state_hash() == built.state_hash() and loaded.schemas() == built.schemas()
    assert draw_problems(loaded, "train", 4, 1) == draw_problems(built, "train", 4, 1)
    about = json.loads((tmp_path / "kiosk" / "world.json").read_text())
    (tmp_path / "kiosk" / "world.json").write_text(json.dumps({**about, "start": "0" * 64}))
    with pytest.raises(BadInput, match=r"the start of .*kiosk.jsonl changed since it was frozen"):
        load(tmp_path / "kiosk")
    (tmp_path / "kiosk" / "world.json").write_text(json.dumps(about))
    (tmp_path / "kiosk" / "schemas.json").write_text("[]")
    with pytest.raises(BadInput, match=r"the tools of .*kiosk.jsonl changed since it was frozen"):
        load(tmp_path / "kiosk")


def test_an_object_that_changes_between_freeze_and_play_is_refused_by_name(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The object's class may lie in a package that is no part of the world's own code."""
    freeze_world(World.build(Adapted, 1, 0, "tests.worlds.kiosk:Adapted"), tmp_path)
    true = Kiosk._find

    def late(self: Kiosk, order_id: str) -> Any:
        order = true(self, order_id)
        order.tags.add("late")
        return order

    monkeypatch.setattr(Kiosk, "_find", late)
    with pytest.raises(
        BadInput, match=r"what is answered to the solution, or the state that it leaves, of problem line 1, line 2, line 3"
    ):
        load(tmp_path)
    monkeypatch.setattr(Kiosk, "_find", true)
    monkeypatch.setattr(Kiosk, "move", lambda self, order_id, due: due)
    with pytest.raises(BadInput, match=r"changed since it was frozen"):
        load(tmp_path)
    monkeypatch.undo()
    moved = Kiosk.move

    def move(self, order_id: str, due: date) -> date:  # type: ignore[no-untyped-def]
        """Deliver later."""
        return moved(self, order_id, due)

    monkeypatch.setattr(Kiosk, "move", move)
    with pytest.raises(BadInput, match=r"the code of tool move of .*changed since it was frozen"):
        load(tmp_path)


def test_a_fork_that_is_not_played_makes_no_object(monkeypatch: pytest.MonkeyPatch) -> None:
    here = world()
    made = []
    monkeypatch.setattr(Kiosk, "__setstate__", lambda self, state: made.append(self.__dict__.update(state)), raising=False)
    forks = [here.fork() for _ in range(50)]
    assert {fork.state_hash() for fork in forks} == {here.state_hash()} and not made
    forks[0].call("get_order", {"order_id": "W1"})
    assert len(made) == 1


class Talkative(Kiosk):
    """Answers in every way that a method may."""

    def fails(self, how: str) -> Any:
        return {"flag": {"error": None, "note": "fine"}, "dict": {"error": "gone"}, "text": "Error: gone"}[how]

    def gives(self) -> Any:
        return (number for number in range(3))

    def huge(self) -> Any:
        return 10**5000

    def cuts(self) -> str:
        return "cut \ud83d"


class Waiting(Kiosk):
    """An API that is awaited."""

    async def settle(self, order_id: str) -> str:
        await asyncio.sleep(0)
        return self.cancel_order(order_id)


def test_async_methods_are_waited_for() -> None:
    here = World.build(adapted(factory=Waiting, tools=("settle",), writes=("settle",), ends=()), 1, 0).fork()
    assert here.call("settle", {"order_id": "W1"}) == ToolResult(True, "cancelled") and here.diff() == PENDING
    assert said(here.call("settle", {"order_id": "W9"})) == "KeyError: 'W9'"


def test_how_methods_fail() -> None:
    here = adapted(
        factory=Talkative, tools=("fails", "gives", "huge", "cuts"), writes=(), ends=(), error_key="error", errors_begin=("Error:",)
    )
    played = World.build(here, 1, 0).fork()
    assert played.call("fails", {"how": "flag"}) == ToolResult(True, '{"error": null, "note": "fine"}')
    assert said(played.call("fails", {"how": "dict"})) == "gone" and said(played.call("fails", {"how": "text"})) == "Error: gone"
    assert played.call("cuts", {}) == ToolResult(True, "cut �")
    lost = played.call("gives", {})
    assert lost.content.startswith(TOOL_FAILURE) and "its answer: the value holds a generator, which is no data. Return text" in said(
        lost
    )
    assert played.call("huge", {}).content.startswith(TOOL_FAILURE)
    with pytest.raises(BadInput, match=r"errors_begin = 'Error:' is one text; write \('Error:',\)"):
        adapted(factory=Talkative, errors_begin="Error:")
