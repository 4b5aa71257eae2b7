"""A small run of a road with scripts in all roles, in a temporary folder: what its stages would be asked, and would leave.

Rooms that make data run themselves on a few problems; of those whose checkpoints play, conversations of scripts are counted. In a world
without scripts a stand-in plays all roles (`tasks.players.stand_in`), whose problems are of one call and whose words are few: what a
model is asked there comes to more.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contract.client import Client, Message, Request
from tasks.contract.context import Context
from tasks.contract.proven import proven
from tasks.engine import methods
from tasks.engine.settings import Settings
from tasks.engine.shared_params import Role
from tasks.engine.together import planned
from tasks.players.acting import acting
from tasks.players.openai_compatible.wire import Dialect, body
from tasks.players.stand_in import StandIn
from tasks.worlds.api.problem_source import Problems

if TYPE_CHECKING:
    from tasks.worlds.api.runtime import World

PROBLEMS = 20
"""Problems a world of the sample."""
SIZE = 60
"""Users of the sample's worlds: prompts hold a few rows, however many there are."""
RUNS = ("generate", "critique", "filter")
"""Rooms whose methods themselves can run small."""
ACCEPTED = 5
"""Problems a world of the sample that a reserve is to hold."""
_SMALLER = {"worlds": {"size": SIZE}, "generate": {"problems": PROBLEMS, "accepted": ACCEPTED}}
"""Room -> params that are made smaller for it."""


Counts = defaultdict[tuple[str, str], float]
"""(role, calls | in | out) -> how many calls, characters sent and answered."""


@dataclass
class _Counting:
    """A scripted client that counts what it is asked."""

    inner: Client
    role: str
    counts: Counts
    name: str = field(init=False)
    revision: str = field(init=False)

    def __post_init__(self) -> None:
        self.name, self.revision = self.inner.name, self.inner.revision

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        """Answer as the script does."""
        answers = self.inner.complete(requests)
        for request, answer in zip(requests, answers, strict=True):
            self.counts[self.role, "calls"] += 1
            self.counts[self.role, "in"] += len(body(Dialect(""), request))
            self.counts[self.role, "out"] += len(str(answer.get("content") or "")) + len(str(answer.get("tool_calls") or ""))
        return answers


@dataclass(frozen=True)
class SmallRun:
    """In `folder`, where each step leaves what it would leave."""

    settings: Settings
    folder: Path

    def of(self, stages: Sequence[str]) -> dict[str, tuple[Counts, float | None]]:
        """stage -> what its roles are asked in a small run, and how many times as large the real one is (None: nobody knows)."""
        road = self.settings.road
        found: dict[str, tuple[Counts, float | None]] = {}
        scales: dict[str, float] = {}
        small = {name for stage in stages if road[stage].room in RUNS for name in (stage, *road[stage].inputs)}
        played = [stage for stage in stages if road[stage].room not in RUNS]
        for step in road:
            proving = (
                played and step.name == self._generating and not all(world.families for world in self._all_worlds(step.name).values())
            )
            if step.name in small or (step.room == "worlds" and played) or proving:
                counts: Counts = defaultdict(float)
                scale = self._run(step.name, _SMALLER.get(step.room, {}), counts)
                scales[step.name] = scale * math.prod(scales[name] for name in step.inputs)
                found[step.name] = (counts, scales[step.name])
        return {**found, **{stage: self._played(stage) for stage in played}}

    @property
    def _generating(self) -> str:
        """The step whose problems are played in worlds that draw none; "" when there is none."""
        return next(iter(self.settings.road.entering("generate")), "")

    def worlds(self, stage: str) -> Path:
        """The small worlds that a stage reads."""
        road = self.settings.road
        return self.folder / (road.input(stage, "worlds") or stage)

    def _players(self, stage: str, counts: Counts) -> Callable[..., Client]:
        from tasks.players.roles import maker

        roles = self.settings.shared.roles.items()
        scripts = {name: {**_script(role), "others": [_script(other) for other in role.others]} for name, role in roles}
        inner = maker(scripts, self.worlds(stage), self.settings.shared.seed)

        unscripted = {name for name, world in self._all_worlds(stage).items() if world.scripts is None}

        def player(name: str, world: str = "") -> Client:
            stands_in = world in unscripted and "/" not in name  # a second judge is one only where the params name it
            return _Counting(StandIn() if stands_in else inner(name, world), name, counts)

        return player

    def _all_worlds(self, stage: str) -> dict[str, World]:
        from tasks.worlds.api.frozen import load_all

        if self.settings.room(stage) == "worlds":
            return {}
        return load_all(self.worlds(stage), methods.reads_unseen(self.settings.room(stage)))

    def _run(self, stage: str, changes: Mapping[str, int], counts: Counts) -> float:
        """Run a stage's method small, on what the stages before it left small; how many times as many problems the params want."""
        settings, folder = self.settings, self.folder
        params = settings.params(stage)
        smaller = {name: min(most, getattr(params, name)) for name, most in changes.items() if hasattr(params, name)}
        (folder / stage).mkdir()
        prompt = settings.shared.prompt.model_dump()
        players, scratch = self._players(stage, counts), folder / f"{stage}-scratch"
        agent = acting(players, prompt, methods.way(settings.agents(stage)))
        ctx = Context(settings.shared.seed, folder / stage, scratch, role=players, agent=agent, prompt=prompt)
        module = methods.load(settings.room(stage), settings.method(stage))
        inputs = {settings.room(name): folder / name for name in settings.road[stage].inputs}
        module.run(module.Inputs(**inputs), params.model_copy(update=smaller), ctx)
        size = "accepted" if smaller.get("accepted") else "problems"  # a step that ends with so many starts no more
        return getattr(params, size, 1) / smaller.get(size, 1)

    def _played(self, stage: str) -> tuple[Counts, float | None]:
        """What the human is asked in a few conversations with the scripted agent, and how many times as many the stage plays."""
        from tasks.worlds.api.play import play

        counts: Counts = defaultdict(float)
        plays = [(module, params) for _, module, params in self.settings.parts(stage) if hasattr(module, "conversations")]
        if not plays:
            return counts, None
        worlds = self._all_worlds(stage)
        seed = self.settings.shared.seed
        made = Problems(proven(self.folder / self._generating if self._generating else None), "The small run proved none.")
        player = self._players(stage, counts)
        act = acting(player, self.settings.shared.prompt.model_dump(), methods.way(self.settings.agents(stage)))
        for name, world in worlds.items():
            jobs = [(problem, 0) for problem in made.up_to(world, "train", PROBLEMS, seed)]
            play(world, jobs, act(name), player("human", name), seed=seed)
        step = planned(self.settings)[stage]
        whole, others = (
            sum(module.conversations(params, one) for module, params in plays) for one in (step, replace(step, contender=False))
        )
        for what in ("calls", "in", "out"):  # the contender is asked what the scripted agent was, in its own conversations alone
            counts["contender", what] = counts["agent", what] * (whole - others) / (whole or 1)
        return counts, whole / (PROBLEMS * len(worlds))


def _script(role: Role) -> dict[str, Any]:
    return {"backend": "scripted", "errors": role.errors}
