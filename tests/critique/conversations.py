"""Conversations written by hand, as rows of TRAJECTORY, in a shop of three tools."""

from __future__ import annotations

from typing import Any

from tasks.contract import rows
from tasks.contract.problem import Action, Problem, ToolResult
from tasks.contract.trajectory import Outcome, Trajectory
from tasks.critique.core import prompts

SHARED: dict[str, Any] = {
    "criteria": {
        "policy": {
            "authenticate_first": "Authenticate the customer first.",
            "confirm": "Get an explicit yes before a change.",
        },
        "conduct": prompts.CONDUCT,
    },
    "tools": {"find_user": "read", "get_order": "read", "cancel_order": "write", "hand_over": "end"},
}

USER: dict[str, dict[str, Any]] = {
    "find_user": {"email": "ada@mail.com"},
    "get_order": {"order_id": "W7001"},
    "cancel_order": {"order_id": "W7001"},
}


class Talk:
    """Builds a conversation line by line."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.calls: list[tuple[Action, ToolResult]] = []

    def user(self, text: str) -> Talk:
        self.messages.append({"role": "user", "content": text})
        return self

    def says(self, text: str) -> Talk:
        self.messages.append({"role": "assistant", "content": text})
        return self

    def does(self, name: str, answer: str, ok: bool = True, kinds: dict[str, Any] = SHARED["tools"], **arguments: Any) -> Talk:
        key = f"call_{len(self.calls)}"
        given: dict[str, Any] = arguments or USER.get(name, {})
        function = {"name": name, "arguments": given}
        call = {"id": key, "type": "function", "function": function}
        self.messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        self.messages.append({"role": "tool", "tool_call_id": key, "name": name, "content": answer})
        self.calls.append((Action(name, given, kinds[name]), ToolResult(ok, answer)))
        return self

    def row(self, name: str = "t", **outcome: Any) -> dict[str, Any]:
        """A row of TRAJECTORY; `outcome` overrides columns."""
        problem = Problem(name, outcome.pop("world", "shop"), "train", "one_write", ("u1",), "calm", "", {}, ())
        graded = Outcome(state=1, outputs=1, required=1, policy=1.0)
        played = Trajectory(problem, 0, self.messages, self.calls, stop="user_stop", outcome=graded, agent="a", human="h")
        return {**rows.trajectory_row(played), **outcome}


def good() -> Talk:
    """A cancellation as it should be."""
    return (
        Talk()
        .user("Hi, please cancel order W7001. I am ada@mail.com.")
        .does("find_user", '{"user_id": "ada_12"}')
        .does("get_order", '{"order_id": "W7001", "status": "pending", "total": 25.5}')
        .says("I will cancel order W7001 and refund $25.50. Shall I?")
        .user("Yes, please.")
        .does("cancel_order", '{"status": "cancelled"}')
        .says("Order W7001 is cancelled; you get $25.50 back.")
    )


def hasty() -> Talk:
    """The same without identification (message 1) and without a yes (message 3)."""
    return (
        Talk()
        .user("Hi, please cancel order W7001. I am ada@mail.com.")
        .does("get_order", '{"order_id": "W7001", "status": "pending", "total": 25.5}')
        .does("cancel_order", '{"status": "cancelled"}')
        .says("Order W7001 is cancelled; you get $25.50 back.")
    )
