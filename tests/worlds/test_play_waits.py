"""Worlds whose tools wait: calls and grading of several conversations run side by side.

Worked by hand: the ground truth of each problem is played for its grading, and waits as its tools do: eight of them at a time take as
long as one. Limit: a ground truth that is refused is raised to who plays, as it is without threads.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest

from tasks.contract.client import Message, Request
from tasks.contract.problem import Action, Problem
from tasks.contract.scripts import STOP
from tasks.players.trivial.oracle import Oracle
from tasks.worlds.api.grading import TruthRefused
from tasks.worlds.api.play import play
from tasks.worlds.api.runtime import World
from tasks.worlds.api.tools import Refused, write


class Slow:
    """A count that takes its time."""

    NAME, POLICY, WAITS = "slow", "R1. Count.", True

    def __init__(self, db: Any) -> None:
        self.db = db

    @staticmethod
    def tables(size: int, seed: int) -> dict[str, Any]:
        return {"users": {f"u{number}": {"count": 0} for number in range(4)}}

    @write()
    def add(self, user: str, many: int) -> str:
        """Count on.

        Args:
            user: whose count.
            many: how far.
        """
        time.sleep(0.2)
        if many < 0:
            raise Refused("not below zero")
        self.db.update("users", user, count=many)
        return "counted"


class Human:
    """Opens, and hangs up at the first reply."""

    name = revision = "human"

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        return [{"role": "assistant", "content": STOP if len(request.messages) > 2 else "Hello."} for request in requests]


def problem(number: int, many: int) -> Problem:
    actions = (Action("add", {"user": "u1", "many": many}, "write"),)
    return Problem(f"p{number}", "slow", "train", "one_write", ("u1",), "plain", "Count.", {}, actions)


def test_by_hand() -> None:
    world, problems = World.build(Slow, 1, 0), [problem(number, number + 1) for number in range(8)]
    begin = time.monotonic()
    played = play(world, [(one, 0) for one in problems], Oracle(problems), Human(), seed=0)
    assert time.monotonic() - begin < 8 * 0.2, "sixteen calls of 0.2 s"
    assert [one.outcome.reward for one in played if one.outcome] == [1] * 8


def test_a_truth_that_is_refused_is_raised() -> None:
    world, problems = World.build(Slow, 1, 0), [problem(0, -1)]
    with pytest.raises(TruthRefused, match=r"its ground truth is refused: .*not below zero"):
        play(world, [(problems[0], 0)], Oracle(problems), Human(), seed=0)
