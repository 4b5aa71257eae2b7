"""The gate of every accepted problem: an oracle must pass it, and agents that take one turn for ever must fail.

Without it a benchmark pays for doing nothing: 20 of the 50 gold sequences of tau-bench airline leave the data unchanged. The
human here only listens: what is gated is the grading, not the talk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.contract.client import Message, Request
from tasks.contract.problem import Problem
from tasks.contract.scripts import STOP
from tasks.players.trivial.constant import do_nothing, hands_over, refuses
from tasks.players.trivial.oracle import Oracle
from tasks.worlds.api.play import play

if TYPE_CHECKING:
    from tasks.worlds.api.runtime import World

AGENTS = ("oracle", "do_nothing", "always_refuses", "always_hands_over")
_STEPS = 4
"""Turns given to an agent that repeats itself; one would do."""


class Listener:
    """A human without a wish: greets, says yes, and hangs up when the agent asks whether there is anything else."""

    name, revision = "listener", "1"

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        """A line for each request."""
        return [{"role": "assistant", "content": _line(request.messages)} for request in requests]


def _line(messages: Sequence[Message]) -> str:
    if len(messages) == 1:
        return "Hello."
    return STOP if "Anything else?" in messages[-1]["content"] else "Yes."


def gate(world: World, problems: Sequence[Problem]) -> list[tuple[str, dict[str, int]]]:
    """For each problem ("" or why it is refused, agent -> 1 if it passes)."""
    jobs = [(problem, 0) for problem in problems]
    steps = max((len(problem.actions) + len(problem.required) + 3 for problem in problems), default=1)
    players = ((Oracle(problems), steps), (do_nothing(), _STEPS), (refuses(), _STEPS), (hands_over(), _STEPS))
    games = [play(world, jobs, agent, Listener(), seed=0, max_steps=limit) for agent, limit in players]
    passed = [[played.outcome.reward if played.outcome else 0 for played in game] for game in games]
    scores = [dict(zip(AGENTS, rewards, strict=True)) for rewards in zip(*passed, strict=True)]
    return [(_refusal(score), score) for score in scores]


def _refusal(score: dict[str, int]) -> str:
    if not score["oracle"]:
        return "its own ground truth does not pass"
    lazy = [name for name in AGENTS[1:] if score[name]]
    return f"{' and '.join(lazy)} would pass" if lazy else ""
