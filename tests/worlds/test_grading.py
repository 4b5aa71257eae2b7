"""The grading in its parts. By hand: each part alone can fail, and is told apart; the policy is told, and does not
count. What counts as said is in test_said.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from tasks.contract.problem import Action, Problem, ToolResult
from tasks.contract.trajectory import GRADING, Outcome, Trajectory
from tasks.worlds.api.grading import called, grade, readable, replies_of
from tasks.worlds.api.runtime import World
from tests.flows.shop import Shop


def test_called_needs_success_and_the_arguments() -> None:
    """25 equals 25.0; further arguments may stand beside the wanted ones."""
    wanted = Action("get", {"n": 25})
    calls = [(Action("get", {"n": 25.0, "m": 1}), ToolResult(True, "")), (Action("get", {"n": 26}), ToolResult(False, ""))]
    assert called(calls, wanted)
    assert not called(calls, Action("get", {"n": 26})) and not called(calls, Action("put", {"n": 25}))
    assert not called([(Action("get", ["n"]), ToolResult(True, ""))], wanted)  # type: ignore[arg-type]


def test_arguments_are_compared_by_value() -> None:
    assert called([(Action("get", {"n": 2.0, "m": [1, 2]}), ToolResult(True, ""))], Action("get", {"n": 2, "m": (1.0, 2)}))


# --- the parts -----------------------------------------------------------------------------------------------------------------


class Ruled(Shop):
    """A shop with two rules over trajectories."""

    TRAJECTORY_PREDICATES = {
        "R1": lambda trajectory, world: None if trajectory.calls else "nothing was called",
        "R2": lambda trajectory, world: "rude" if "rude" in trajectory.messages[0]["content"] else None,
    }


LOOK = Action("get_order", {"order_id": "W1000"})
PROBLEM = Problem("p", "shop", "test", "one_write", ("u0",), "", "", {}, (LOOK,), ("10",), (LOOK,))


@pytest.mark.parametrize(
    ("message", "calls", "final", "verdict", "broken"),
    [
        ("It is 10.", [(LOOK, ToolResult(True, ""))], "a", (1, 1, 1, 1.0), ()),
        ("It is 10.", [(LOOK, ToolResult(True, ""))], "b", (0, 1, 1, 1.0), ()),
        ("It is 11.", [(LOOK, ToolResult(True, ""))], "a", (1, 0, 1, 1.0), ()),
        ("It is 10.", [(LOOK, ToolResult(False, ""))], "a", (1, 1, 0, 1.0), ()),
        ("It is 10, rude.", [(LOOK, ToolResult(True, ""))], "a", (1, 1, 1, 0.5), ("R2",)),
        ("rude", [], "b", (0, 0, 0, 0.0), ("R1", "R2")),
    ],
)
def test_each_part_is_told_apart(message: str, calls: Any, final: str, verdict: tuple[float, ...], broken: tuple[str, ...]) -> None:
    played = Trajectory(PROBLEM, 0, [{"role": "assistant", "content": message}], calls)
    outcome = grade(played, World.build(Ruled, 3, 0), final, "a")
    assert tuple(getattr(outcome, part) for part in GRADING) == verdict and outcome.broken == broken
    assert outcome.reward == int(verdict[:3] == (1, 1, 1)), "the policy does not count"
    assert (outcome.final_state_hash, outcome.wanted_state_hash) == (final, "a")


def test_a_world_without_rules_breaks_none() -> None:
    played = Trajectory(PROBLEM, 0, [{"role": "assistant", "content": "10"}], [(LOOK, ToolResult(True, ""))])
    assert grade(played, World.build(Shop, 3, 0), "a", "a") == Outcome(1, 1, 1, 1.0, (), "a", "a")


def test_every_part_has_a_version() -> None:
    assert list(GRADING) == [field.name for field in fields(Outcome)][: len(GRADING)] and min(GRADING.values()) >= 1


def test_only_what_no_world_takes_is_hidden_from_predicates() -> None:
    def message(arguments: Any) -> dict[str, Any]:
        return {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "c", "function": {"name": "get_order", "arguments": arguments}}],
        }

    fine = Trajectory(PROBLEM, 0, [message({"order_id": "W1"})], [(Action("get_order", {"order_id": "W1"}), ToolResult(True, ""))])
    assert readable(fine) is fine
    user = {"role": "user", "content": "hello"}
    odd = Trajectory(PROBLEM, 0, [user, message([1]), message({"order_id": "W1"})], [(Action("get_order", [1]), ToolResult(False, ""))])  # type: ignore[arg-type]
    shown = readable(odd)
    assert shown.calls == [(Action("get_order", {}), ToolResult(False, ""))]
    assert shown.messages == [user, message({}), message({"order_id": "W1"})]
    assert odd.messages[1] == message([1])


def test_words_beside_a_call_are_not_heard() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "get_order", "arguments": {}}}
    beside, said = {"role": "assistant", "content": "It is 10.", "tool_calls": [call]}, {"role": "assistant", "content": "It is 10."}
    assert replies_of([beside]) == [] and replies_of([beside, {"role": "tool", "content": "10"}, said]) == ["It is 10."]
