"""`cairn run --estimate`: what the model calls of a run may cost, before the first is made.

Every stage is looked at whose roles a server plays. generate and critique run on a few problems with scripted players in all roles, in
a temporary folder; what they ask is counted and scaled to the problems of the params. rl and evaluate play checkpoints that are not
there yet: a few conversations of scripted agents are counted instead, times the conversations that the method says it plays
(`conversations`). It is an estimate: a real model words things differently and is refused more or less often.
"""

from __future__ import annotations

import math
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tasks.contract.client import Client, Message, Request
from tasks.contract.context import Context
from tasks.engine import methods
from tasks.engine.dvc_yaml import listed
from tasks.engine.settings import Settings
from tasks.engine.shared_params import SERVER, Role
from tasks.engine.together import planned
from tasks.players.acting import acting
from tasks.players.openai_compatible.budget import Prices
from tasks.players.openai_compatible.cache import NAME, Cache
from tasks.players.openai_compatible.wire import Dialect, body
from tasks.worlds.api.problem_making import draw_problems

PROBLEMS = 20
"""Problems a world of the sample."""
SIZE = 60
"""Users of the sample's worlds: prompts hold a few rows, however many there are."""
CHARACTERS = 4
"""A token, where no server has counted any yet."""
EXPERIENCE = 20
"""Answers of a model in a role from which their mean tokens are taken instead."""
RUNS = ("generate", "critique")
"""Rooms whose methods themselves can run small."""
_SMALLER = {"worlds": {"size": SIZE}, "generate": {"problems": PROBLEMS}}
"""Room -> params that are made smaller for it."""


@dataclass(frozen=True)
class Estimate:
    """One role's calls and tokens in one stage. measured: tokens are the mean of earlier answers, not of the sample's characters.
    calls are -1 where the stage's method does not tell how much it plays."""

    stage: str
    role: str
    model: str
    calls: int
    tokens_in: int = 0
    tokens_out: int = 0
    money: float = 0.0
    measured: bool = False


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


def estimate(settings: Settings, stages: Iterable[str], state: Path) -> list[Estimate]:
    """Per stage and role behind a server that it asks. `state`: folder of the cache, whose answers tell of real tokens."""
    about, wanted = listed(settings), {*stages}
    servers = [(name, role) for name, _, role in settings.shared.players() if role.backend == SERVER]
    asked = {stage: [one for one in servers if one[0].partition("/")[0] in about[stage].roles] for stage in about if stage in wanted}
    asked = {stage: players for stage, players in asked.items() if players}
    if not asked:
        return []
    with tempfile.TemporaryDirectory() as folder:
        sampled = _Sample(settings, Path(folder)).of([*asked])
    known = _experience(state)
    found = [_estimate(stage, *player, *sampled[stage], known) for stage, players in asked.items() for player in players]
    return [one for one in found if one.calls]


def _estimate(stage: str, name: str, role: Role, counts: Counts, scale: float | None, known: Mapping[Any, Any]) -> Estimate:
    if scale is None:
        return Estimate(stage, name, role.model, -1)
    if not (calls := counts[name, "calls"]):
        return Estimate(stage, name, role.model, 0)
    per_call = known.get((role.model, name))
    mean_in, mean_out = per_call or (counts[name, "in"] / calls / CHARACTERS, counts[name, "out"] / calls / CHARACTERS)
    tokens_in, tokens_out = (round(mean * calls * scale) for mean in (mean_in, mean_out))
    money = Prices(role.price_in, role.price_out).of(tokens_in, tokens_out)
    return Estimate(stage, name, role.model, round(calls * scale), tokens_in, tokens_out, money, per_call is not None)


def _experience(state: Path) -> dict[tuple[str, str], tuple[float, float]]:
    """(model, role) -> mean tokens in and out, where enough answers are kept."""
    if not (state / NAME).is_file():
        return {}
    cache = Cache(state)
    rows = [row for row in cache.kept() if row["answers"] >= EXPERIENCE]
    cache.close()
    return {(row["model"], row["role"]): (row["tokens_in"] / row["answers"], row["tokens_out"] / row["answers"]) for row in rows}


@dataclass(frozen=True)
class _Sample:
    """Small runs with scripts in `folder`."""

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
            if step.name in small or (step.room == "worlds" and played):
                counts: Counts = defaultdict(float)
                scale = self._run(step.name, _SMALLER.get(step.room, {}), counts)
                scales[step.name] = scale * math.prod(scales[name] for name in step.inputs)
                found[step.name] = (counts, scales[step.name])
        return {**found, **{stage: self._played(stage) for stage in played}}

    def _worlds(self, stage: str) -> Path:
        """The small worlds that a stage reads."""
        road = self.settings.road
        return self.folder / (road.input(stage, "worlds") or stage)

    def _players(self, stage: str, counts: Counts) -> Callable[..., Client]:
        from tasks.players.roles import maker

        roles = self.settings.shared.roles.items()
        scripts = {name: {**_script(role), "others": [_script(other) for other in role.others]} for name, role in roles}
        inner = maker(scripts, self._worlds(stage), self.settings.shared.seed)
        return lambda name, world="": _Counting(inner(name, world), name, counts)

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
        return getattr(params, "problems", 1) / smaller.get("problems", 1)

    def _played(self, stage: str) -> tuple[Counts, float | None]:
        """What the human is asked in a few conversations with the scripted agent, and how many times as many the stage plays."""
        from tasks.worlds.api.frozen import load_all
        from tasks.worlds.api.play import play

        counts: Counts = defaultdict(float)
        plays = [(module, params) for _, module, params in self.settings.parts(stage) if hasattr(module, "conversations")]
        if not plays:
            return counts, None
        worlds, seed = load_all(self._worlds(stage)), self.settings.shared.seed
        player = self._players(stage, counts)
        act = acting(player, self.settings.shared.prompt.model_dump(), methods.way(self.settings.agents(stage)))
        for name, world in worlds.items():
            jobs = [(problem, 0) for problem in draw_problems(world, "train", PROBLEMS, seed)]
            play(world, jobs, act(name), player("human", name), seed=seed)
        step = planned(self.settings, {name: self.settings.params(name) for name in self.settings.road.names})[stage]
        whole, others = (
            sum(module.conversations(params, one) for module, params in plays) for one in (step, replace(step, contender=False))
        )
        for what in ("calls", "in", "out"):  # the contender is asked what the scripted agent was, in its own conversations alone
            counts["contender", what] = counts["agent", what] * (whole - others) / (whole or 1)
        return counts, whole / (PROBLEMS * len(worlds))


def _script(role: Role) -> dict[str, Any]:
    return {"backend": "scripted", "errors": role.errors}


def as_document(found: Sequence[Estimate], settings: Settings) -> dict[str, Any]:
    """The estimate for scripts. calls, tokens: null where a method does not tell how much it plays; money: null without a price."""
    return {
        "estimates": [
            {
                "stage": one.stage,
                "role": one.role,
                "model": one.model,
                "calls": one.calls if one.calls >= 0 else None,
                "tokens_in": one.tokens_in if one.calls >= 0 else None,
                "tokens_out": one.tokens_out if one.calls >= 0 else None,
                "money": one.money or None,
                "measured": one.measured,
            }
            for one in found
        ],
        "budget": settings.shared.budget.model_dump(),
    }


def lines(found: Sequence[Estimate], settings: Settings) -> list[str]:
    """The estimate as a table, with what it rests on."""
    if not found:
        return ["no calls to model servers: what would run asks scripts and local checkpoints alone, or is cached"]
    out = [f"{'stage':<9} {'role':<13} {'model':<28} {'calls':>9} {'tokens in':>13} {'tokens out':>12} {'money':>10}"]
    out += [
        f"{one.stage:<9} {one.role:<13} {one.model:<28} {one.calls:>9,} {one.tokens_in:>13,} {one.tokens_out:>12,} "
        f"{f'{one.money:.2f}' if one.money else 'unknown':>10}{'' if one.measured else ' *'}"
        if one.calls >= 0
        else f"{one.stage:<9} {one.role:<13} {one.model:<28}   unknown: {settings.method(one.stage)} has no function `conversations`"
        for one in found
    ]
    counted = [one for one in found if one.calls >= 0]
    tokens, money = sum(one.tokens_in + one.tokens_out for one in counted), sum(one.money for one in counted)
    unknown = " and what has no price" if any(not one.money for one in found) else ""
    out += ["", f"about {sum(one.calls for one in counted):,} calls, {tokens:,} tokens, {money:.2f} in money{unknown}"]
    budget = settings.shared.budget
    if (budget.max_cost and money > budget.max_cost) or (budget.max_tokens and tokens > budget.max_tokens):
        out.append(
            f"That is more than the budget (max_cost {budget.max_cost:g}, max_tokens {budget.max_tokens}): the run would stop early."
        )
    out.append(
        f"An estimate: {PROBLEMS} problems a world were made and played by scripts, and the counts scaled. A real model is refused"
    )
    out.append("more often and says more; answers in the cache cost nothing and are not taken off.")
    if any(not one.measured for one in counted):
        out.append(f"* tokens at {CHARACTERS} characters each; after {EXPERIENCE} real answers their mean is used.")
    return out
