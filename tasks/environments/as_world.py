"""An environment as a world: the human is the environment itself, so that whatever plays, trains or measures in worlds does so here.

A problem is a seed. What the agent is told is what the environment tells after the replies so far, which are played again from the
seed: a line hangs on the request alone, whoever asks, however often. A conversation is graded likewise, by the rewards that its replies
bring. It has no tools and no policy, and draws its own problems.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count as counted
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

from tasks.contract.client import Client, Message, Request
from tasks.contract.params import BadInput
from tasks.contract.problem import Problem, Split
from tasks.contract.scripts import STOP, Scripts
from tasks.contract.trajectory import ENDED, Outcome, Trajectory
from tasks.environments import Environment, NoOracle, episodes, frozen
from tasks.worlds.api.frozen import freeze_world
from tasks.worlds.api.grading import replies_of
from tasks.worlds.api.runtime import World, shared_of

KEPT = 4096
"""Points of episodes, and best returns, that are kept; ours: more than the conversations that are played at a time."""


@dataclass(frozen=True)
class Point:
    """An episode after some replies. kept: a snapshot. line: what is told now. rewards, subgoals: of each step so far."""

    kept: Any
    line: str
    over: bool = False
    rewards: tuple[float, ...] = ()
    subgoals: tuple[int, ...] = ()


class Replays:
    """Episodes of one environment, each by its seed and the replies so far. What was asked last is kept, which changes no answer."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._points: OrderedDict[tuple[int, tuple[str, ...]], Point] = OrderedDict()
        self._best: OrderedDict[int, float | None] = OrderedDict()
        self._lock = Lock()  # the environment holds one episode at a time, and conversations may be graded in threads

    def after(self, seed: int, replies: Sequence[str]) -> Point:
        """The episode after these replies; those behind its end change nothing."""
        said = tuple(replies)
        with self._lock:
            known = next((size for size in range(len(said), 0, -1) if (seed, said[:size]) in self._points), 0)
            point = self._points[seed, said[:known]] if known else self._begun(seed)
            for size in range(known, len(said)):
                if point.over:
                    break
                point = self._stepped(point, said[size])
            _keep(self._points, (seed, said), point)
            return point

    def _begun(self, seed: int) -> Point:
        self._environment.reset([seed])
        return Point(self._environment.snapshot(), self._environment.tell()[0])

    def _stepped(self, point: Point, reply: str) -> Point:
        one = self._environment
        one.restore(point.kept)
        steps = one.step(one.read([reply]))
        over = bool(steps.terminal[0] or steps.truncated[0])
        rewards, subgoals = (*point.rewards, float(steps.reward[0])), (*point.subgoals, int(steps.subgoals[0]))
        return Point(one.snapshot(), "" if over else one.tell()[0], over, rewards, subgoals)

    def best(self, seed: int) -> float | None:
        """The most that can be had in an episode; None where nobody can compute it."""
        with self._lock:
            if seed not in self._best:
                try:
                    _keep(self._best, seed, float(episodes.best(self._environment, [seed])[0]))
                except NoOracle:
                    _keep(self._best, seed, None)
            return self._best[seed]


def _keep(kept: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > KEPT:
        kept.popitem(last=False)


@dataclass
class Speaker:
    """The environment as whoever talks to the agent."""

    replays: Replays
    name: str = "environment"
    revision: str = ""

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        """What is told now in each conversation; STOP where the episode is over."""
        return [{"role": "assistant", "content": self._line(request)} for request in requests]

    def _line(self, request: Request) -> str:
        replies = [str(message["content"]) for message in request.messages if message["role"] == "user"]
        point = self.replays.after(request.intent["seed"], replies)
        return STOP if point.over else point.line


class AsWorld:
    """What all environments have in common as a world's class (`tasks.worlds.api.runtime`)."""

    NAME = ""
    POLICY = ""
    FAMILIES: tuple[str, ...] = ()
    TURNS = 0
    HUMAN: Client
    SCRIPTS: Scripts
    environment: ClassVar[Environment]
    replays: ClassVar[Replays]

    def __init__(self, db: Any) -> None:
        """There is no state: an episode is its seed and the replies."""

    @staticmethod
    def of_folder(folder: Path) -> type:
        """The class of the environment that was frozen in a folder."""
        return class_of(folder.name, frozen.load(folder))

    @classmethod
    def problems(cls, split: Split, count: int, seed: int, families: Sequence[str]) -> list[Problem]:
        """Different seeds, families in turn; the first n do not depend on `count`. A family without a start in the split is left out;
        BadInput where none has one."""
        drawn = {family: episodes.seeds(cls.environment, split, [family], cls.NAME, seed) for family in families}
        found: list[Problem] = []
        for turn in counted():
            for family in list(drawn):
                if len(found) == count:
                    return found
                try:
                    found.append(_problem(cls.NAME, split, family, next(drawn[family])))
                except BadInput:
                    if turn or len(drawn) == 1:
                        raise
                    del drawn[family]
        raise AssertionError("counting does not end")

    @classmethod
    def grades(cls, trajectory: Trajectory) -> Outcome:
        """The rewards of its replies; `value` is their sum. It is solved when that is the most that can be had, or where nobody knows
        the most, when it is above 0. A turn that broke the conversation off is no reply."""
        replies = replies_of(trajectory.messages)
        broken_off = trajectory.stop not in (*ENDED, "max_steps") and not trajectory.stop.startswith("human_")
        if broken_off and trajectory.messages and trajectory.messages[-1]["role"] == "assistant":
            replies = replies[:-1]
        seed = trajectory.problem.intent["seed"]
        point, best = cls.replays.after(seed, replies), cls.replays.best(seed)
        value = sum(point.rewards)
        won = episodes.solved(value, best)
        of = "" if best is None else f" of {best:g}"
        return Outcome(
            *(int(won),) * 3,
            policy=1.0,
            blame="" if won else "human" if trajectory.stop.startswith("human_") else "agent",
            blame_reason="" if won else f"brought {value:g}{of}, ended by {trajectory.stop}",
            value=value,
            rewards=point.rewards,
            subgoals=point.subgoals,
        )


def _problem(world: str, split: Split, family: str, seed: int) -> Problem:
    name = f"{world}_{seed}"
    return Problem(name, world, split, family, (name,), "an environment", f"Play the episode of seed {seed}.", {"seed": seed}, ())


def _no_agent(request: Request, errors: Any) -> Message:
    raise BadInput(
        "an environment's scripted expert knows its state, which no conversation tells: it plays in `generate.method: expert_rows` and "
        "`evaluate.method: episodes`, and is no role. Let a model play the agent."
    )


def class_of(name: str, environment: Environment) -> type[AsWorld]:
    """The class of a world that is an environment. name: as the params call it."""
    replays = Replays(environment)
    speaker = Speaker(replays)
    scripts = Scripts(lambda request: speaker.complete([request])[0], _no_agent, environment.errors, frozenset(environment.errors))
    own = {
        "NAME": name,
        "FAMILIES": environment.families,
        "TURNS": environment.limit,
        "HUMAN": speaker,
        "SCRIPTS": scripts,
        "environment": environment,
        "replays": replays,
    }
    return type(AsWorld.__name__, (AsWorld,), own)


def world(name: str, environment: Environment) -> World:
    """An environment as a world."""
    return World(shared_of(class_of(name, environment), f"{__name__}:{AsWorld.__name__}", 0, 0, {}, {}))


def freeze(environment: Environment, folder: Path) -> None:
    """Write an environment's folder, as an environment and as a world of the folder's name."""
    frozen.freeze(environment, folder)
    freeze_world(world(folder.name, environment), folder)
