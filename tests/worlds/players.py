"""What the tests of worlds share: small worlds, and conversations played by the real engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from tasks.contract.problem import Problem
from tasks.contract.trajectory import Trajectory
from tasks.players import scripted
from tasks.players.client_agent import ClientAgent
from tasks.worlds.api.loading import BUILT_IN, world_class
from tasks.worlds.api.play import play
from tasks.worlds.api.problem_making import draw_problems
from tasks.worlds.api.runtime import World

NAMES = ("retail", "airline")


@cache
def world(name: str, size: int = 100) -> World:
    address = next(one for one in BUILT_IN if f".{name}:" in one)
    return World.build(world_class(address), size, 7, address)


@cache
def problems(name: str, split: str = "train", count: int = 210) -> tuple[Problem, ...]:
    return tuple(draw_problems(world(name), split, count, 1))


def talk(name: str, tasks: Sequence[Problem], errors: Mapping[str, float] | None = None, trial: int = 0) -> list[Trajectory]:
    """The scripted human and the scripted agent through each problem."""
    here = world(name)
    agent = ClientAgent(scripted.client("agent", here, dict(errors or {}), 0), {"tools": "none", "policy": "none"})
    human = scripted.client("human", here, {}, 0)
    return play(here, [(problem, trial) for problem in tasks], agent, human, seed=3)


def rewards(played: Sequence[Trajectory]) -> list[int]:
    return [one.outcome.reward for one in played if one.outcome is not None]
