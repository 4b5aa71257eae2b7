"""Conversations side by side over servers of the Model Context Protocol: how much faster many are than one after the other.

Each conversation makes the same calls, half of them writes, in a world over `infra/slow_server.py` as `from_mcp` makes it by default:
its state is dumped after every call, it has as many servers as waiting calls for, and starting them is counted. Twice: with tools that
take `--seconds`, as those do that ask a service, and with tools that answer at once, where the processors are what limits.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from infra.bench import publish
from tasks.contract.agent import Turn
from tasks.contract.agent import World as AgentWorld
from tasks.contract.client import Message, Request
from tasks.contract.problem import Action, Problem
from tasks.contract.scripts import STOP
from tasks.worlds.adapters import from_mcp
from tasks.worlds.api.play import play
from tasks.worlds.api.runtime import World

MUST, AIM = 20, 40
"""Times as many calls a second with 64 conversations side by side as with one."""


class Caller:
    """Makes the calls of the problem that the human names, one a turn, and then closes."""

    name = "caller"

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._owed: dict[str, Turn] = {}

    def send(self, conversation: str, messages: Sequence[Message], world: AgentWorld, seed: int) -> None:
        """Owe the next call."""
        number, calls = map(int, messages[0]["content"].split())
        actions = problem_of(number, calls).actions
        place = sum(message["role"] == "tool" for message in messages)
        message: Message = {"role": "assistant", "content": "Done." if place == calls else ""}
        if place < calls:
            action = actions[place]
            call = {"name": action.name, "arguments": action.arguments}
            message["tool_calls"] = [{"id": f"call_{place}", "type": "function", "function": call}]
        self._owed[conversation] = Turn(message)

    def resume(self, conversation: str, messages: Sequence[Message], turns: Sequence[Turn]) -> None:
        """Nothing: it counts the answers."""

    def poll(self) -> list[tuple[str, Turn]]:
        """Every turn that is owed."""
        owed, self._owed = self._owed, {}
        return list(owed.items())

    def close(self, conversation: str) -> None:
        """Forget the conversation."""
        self._owed.pop(conversation, None)


class Human:
    """Opens with the problem's number and its number of calls, and hangs up at the first reply."""

    name = revision = "human"

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        """A line for each."""
        return [{"role": "assistant", "content": STOP if len(request.messages) > 2 else _opening(request)} for request in requests]


def _opening(request: Request) -> str:
    return f"{request.labels['problem'].removeprefix('p')} {request.intent['calls']}"


def world_of(folder: Path, seconds: float) -> World:
    """A world whose tools take so long, over servers of its own."""
    about = {"command": ["python", str(Path(__file__).with_name("slow_server.py")), str(seconds)]}
    (folder / "mcp.yaml").write_text(json.dumps({**about, "dump": "dump", "restore": "restore", "writes": ["add"]}))  # JSON is YAML
    return World.build(from_mcp(folder / "mcp.yaml", name="slow", policy="R1. Count."), 1, 0)


def problem_of(number: int, calls: int) -> Problem:
    """A problem that no other number has: looking and adding in turns."""
    actions = tuple(Action("add", {"many": number + 1}, "write") if place % 2 else Action("look", {}) for place in range(calls))
    return Problem(f"p{number}", "slow", "train", "writes", (f"u{number}",), "plain", "Count.", {"calls": calls}, actions)


def calls_a_second(seconds: float, conversations: int, side_by_side: int, calls: int) -> float:
    """Of all conversations together; servers are started meanwhile, and each ground truth is played once, for the grading. Raises
    SystemExit for a conversation that is not won.
    """
    with tempfile.TemporaryDirectory() as folder:
        world = world_of(Path(folder), seconds)
        problems = [problem_of(number, calls) for number in range(conversations)]
        begin = time.perf_counter()
        played = play(world, [(problem, 0) for problem in problems], Caller(side_by_side), Human(), seed=0, max_steps=calls + 2)
        taken = time.perf_counter() - begin
    if lost := [talk for talk in played if talk.outcome is None or not talk.outcome.reward]:
        raise SystemExit(f"{len(lost)} of {len(played)} conversations were not won; the first stopped by {lost[0].stop}")
    return conversations * calls / taken


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.5, help="that a slow tool takes")
    parser.add_argument("--side-by-side", type=int, default=64, help="conversations")
    parser.add_argument("--calls", type=int, default=16, help="of a conversation")
    options = parser.parse_args()
    figures: list[tuple[str, float]] = []
    for seconds in (options.seconds, 0.0):
        one = calls_a_second(seconds, 1, 1, options.calls)
        many = calls_a_second(seconds, options.side_by_side, options.side_by_side, options.calls)
        what = f"tools of {seconds:g} s"
        held = f" (must {MUST}, aim {AIM})" if seconds else ""
        figures += [
            (f"{what}: calls a second, one conversation", one),
            (f"{what}: calls a second, {options.side_by_side} conversations side by side", many),
            (f"{what}: {options.side_by_side} conversations against one, times{held}", many / one),
        ]
    publish("servers", figures, vars(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
