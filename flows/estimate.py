"""`cairn run --estimate`: what the model calls of a run may cost, before the first is made.

Every stage is looked at whose roles a server plays. generate and critique run on a few problems with scripted players in all roles, in
a temporary folder; what they ask is counted and scaled to the problems of the params. rl and evaluate play checkpoints that are not
there yet: a few conversations of scripted agents are counted instead, times the conversations that the method says it plays
(`conversations`). It is an estimate: a real model words things differently and is refused more or less often.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.small_run import PROBLEMS, Counts, SmallRun
from tasks.engine.dvc_yaml import listed
from tasks.engine.settings import Settings
from tasks.engine.shared_params import SERVER, Role
from tasks.players.openai_compatible.budget import Prices
from tasks.players.openai_compatible.cache import NAME, Cache

CHARACTERS = 4
"""A token, where no server has counted any yet."""
EXPERIENCE = 20
"""Answers of a model in a role from which their mean tokens are taken instead."""


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


def estimate(settings: Settings, stages: Iterable[str], state: Path) -> list[Estimate]:
    """Per stage and role behind a server that it asks. `state`: folder of the cache, whose answers tell of real tokens."""
    about, wanted = listed(settings), {*stages}
    servers = [(name, role) for name, _, role in settings.shared.players() if role.backend == SERVER]
    asked = {stage: [one for one in servers if one[0].partition("/")[0] in about[stage].roles] for stage in about if stage in wanted}
    asked = {stage: players for stage, players in asked.items() if players}
    if not asked:
        return []
    with tempfile.TemporaryDirectory() as folder:
        sampled = SmallRun(settings, Path(folder)).of([*asked])
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
        f"An estimate: {PROBLEMS} problems a world were made and played by scripts, or by a stand-in where a world has none, and the"
    )
    out.append(
        "counts scaled. A real model is refused more often and says more; answers in the cache cost nothing and are not taken off."
    )
    if any(not one.measured for one in counted):
        out.append(f"* tokens at {CHARACTERS} characters each; after {EXPERIENCE} real answers their mean is used.")
    return out
