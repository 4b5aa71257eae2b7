"""Calls that no sane agent would make; `make bench-worlds` plays a hundred thousand of them.

By hand: what arrives at the edge of a world and what is answered. Drawn: conversations of bent calls against the built-in worlds. The
fuzzing itself is tried on worlds that have the faults it is to find.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from infra.fuzz import fuzz
from tasks.contract.problem import Action, Problem, ToolResult
from tasks.contract.trajectory import Outcome, Trajectory
from tasks.worlds.api.calls import LONGEST
from tasks.worlds.api.problem_making import draw_problems
from tasks.worlds.api.runtime import World
from tasks.worlds.api.state import State
from tasks.worlds.api.tools import Refused, read, write
from tasks.worlds.library.retail import Retail
from tests.flows.shop import Shop
from tests.worlds.players import NAMES, problems, world


def deep(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        (None, {}, "no tool None."),
        (["get_order"], {}, "a tool's name must be a string, got list"),
        ("x" * 10**6, {}, "no tool 'xxxx"),
        ("get_order\ud800", {}, "no tool 'get_order\\ud800'. Did you mean 'get_order'?"),
        ("get_order", None, "arguments must be a JSON object"),
        ("get_order", '{"order_id": "W1000"}', "arguments must be a JSON object"),
        ("get_order", {1: 2}, "arguments: keys must be strings, got int"),
        ("get_order", {"order_id": b"W"}, "arguments: only JSON values"),
        ("get_order", {"order_id": float("nan")}, "arguments: nan is not a JSON number"),
        ("get_order", {"order_id": 10**5000}, "arguments: an integer of 16610 bits is larger than JSON numbers can be"),
        ("get_order", {"order_id": "W\udfff"}, "arguments: text with half a character (\\udfff)"),
        ("get_order", {"order_id": deep(100_000)}, "arguments: nested more than 64 levels deep"),
        ("get_order", {"order_id": deep(60)}, "argument 'order_id' must be a string, got {'a': {'a':"),
        ("get_order", {"x" * 10**6: 1}, "unknown argument 'xxx"),
        ("get_order", {"order_id": "é" * 10**6}, "(999,011 more characters)"),
    ],
)
def test_refusals_by_hand(name: Any, arguments: Any, says: str) -> None:
    here = World.build(Shop, 4, 0)
    result = here.call(name, arguments)
    said = json.loads(result.content)["error"]
    assert not result.ok and says in said and len(said) < LONGEST + 100
    assert here.snapshot() == ()


class Odd(Shop):
    NAME = "odd"

    @read()
    def give(self, what: str) -> Any:
        """Answer something that is no text.

        Args:
            what: which.
        """
        return {"nan": float("nan"), "half": "\ud800", "object": object(), "set": {"b", "a"}, "deep": deep(100_000)}[what]

    @write()
    def leave(self) -> str:
        """Change a row, then leave the program."""
        self.db.update("orders", "W1000", status="lost")
        raise SystemExit(3)


def test_what_a_tool_answers_is_text_or_a_failure() -> None:
    here = World.build(Odd, 4, 0)
    assert here.call("give", {"what": "set"}) == ToolResult(True, '["a", "b"]')
    for what, says in (
        ("nan", "ValueError"),
        ("half", "an answer with half a character"),
        ("object", "got object"),
        ("deep", "Recursion"),
    ):
        result = here.call("give", {"what": what})
        assert not result.ok and json.loads(result.content)["error"].startswith("tool failure: ") and says in result.content
    result = here.call("leave", {})
    assert not result.ok and "tool failure: SystemExit: 3" in result.content and here.diff() == ""


@pytest.mark.parametrize("name", NAMES)
def test_the_built_in_worlds_stand(name: str) -> None:
    tally = fuzz(world(name), 2500, 1)
    assert tally.calls >= 2500 and tally.ok > 250 and tally.changed > 25, "many calls must get through, or little is tried"


def test_grading_stands_what_was_refused() -> None:
    """A model's 1e999 or bottomless list is refused; the predicates of the policy judge the conversation all the same."""
    here, problem = world("retail"), problems("retail", count=14)[0]
    played = Trajectory(problem, 0)
    for number, arguments in enumerate(({"order_id": float("inf")}, {"order_id": deep(5000)}, ["W1"], {"order_id": "\ud800"})):
        call = {"id": str(number), "function": {"name": "cancel_order", "arguments": arguments}}
        played.messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        played.calls.append((Action("cancel_order", arguments, "write"), here.fork().call("cancel_order", arguments)))  # type: ignore[arg-type]
    outcome = here.grade(played, here.fork())
    assert isinstance(outcome, Outcome) and outcome.reward == 0 and "R3" in outcome.broken
    assert played.calls[2][0].arguments == ["W1"], "the trajectory keeps what was called"


class Falls(Retail):
    @write()
    def change_address(self, order_id: str, address: str) -> dict[str, Any]:
        """Change the address; falls over empty text.

        Args:
            order_id: such as W1.
            address: anything.
        """
        self.db.update("orders", order_id, address=address)
        return {"first": address[0]}


class Halves(Retail):
    @write()
    def change_address(self, order_id: str, address: str) -> dict[str, Any]:
        """Change the address first and refuse it then.

        Args:
            order_id: such as W1.
            address: anything.
        """
        if self.db.get("orders", order_id) is None:
            raise Refused("no such order")
        self.db.update("orders", order_id, address=address)
        if not address[:1].isdigit():
            raise Refused("that is no address")
        return {}


class Counts(Retail):
    @read()
    def get_product(self, product: str) -> dict[str, str]:
        """Count a look-up in the state.

        Args:
            product: such as mug.
        """
        if self.db.get("products", product) is None:
            raise Refused("no such product")
        self.db.update("products", product, seen=True)
        return {}


@pytest.mark.parametrize(
    ("faulty", "says"),
    [(Falls, "tool failure: "), (Halves, "a call that failed left a trace"), (Counts, "no successful write changed the state")],
)
def test_it_finds_faults(faulty: type, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that falls over empty text; an undo that forgets; a state that lets look-ups write."""
    finish, begin = State.finish, State.begin
    here = World.build(faulty, 20, 7)
    seeds = draw_problems(world("retail", 20), "train", 60, 0)
    monkeypatch.setattr("infra.fuzz.draw_problems", lambda world, split, count, seed: seeds)
    if faulty is Halves:
        monkeypatch.setattr(State, "finish", lambda self, keep: finish(self, True))
    if faulty is Counts:
        monkeypatch.setattr(State, "begin", lambda self, kind: begin(self, "write"))
    with pytest.raises(AssertionError, match=says):
        for number in range(5):  # what is drawn depends on the modules that are loaded, and with it what ten thousand calls meet
            fuzz(here, 10_000, number, shrink=False)


def test_a_conversation_is_a_function_of_the_seed() -> None:
    tallies = [fuzz(world("retail"), 500, number) for number in (3, 3, 4)]
    assert tallies[0] == tallies[1] != tallies[2]


def test_problem_without_arguments_can_be_bent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that takes nothing is called with something."""
    here = World.build(Odd, 4, 0)
    one = Problem("p", "odd", "train", "one_write", ("u0",), "", "", {}, (Action("leave", {}, "write"),))
    monkeypatch.setattr("infra.fuzz.draw_problems", lambda world, split, count, seed: [one])
    with pytest.raises(AssertionError, match="SystemExit"):
        fuzz(here, 100, 0, shrink=False)
