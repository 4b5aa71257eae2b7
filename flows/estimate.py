"""`cairn run --estimate`: what the model calls of a run may cost, before the first is made.

The stages' own methods run on a few problems with scripted players in all roles, in a temporary folder; what they ask is counted and
scaled to the problems of the params. It is an estimate: a real model words things differently and is refused more or less often.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks import methods
from tasks.context import Context
from tasks.llm import Client, Message, Request
from tasks.llm.endpoint.budget import Prices
from tasks.llm.endpoint.cache import NAME, Cache
from tasks.llm.endpoint.wire import Dialect, body
from tasks.settings import Role, Settings

PROBLEMS = 20
"""Problems a world of the sample."""
SIZE = 60
"""Users of the sample's worlds: prompts hold a few rows, however many there are."""
CHARACTERS = 4
"""A token, where no server has counted any yet."""
EXPERIENCE = 20
"""Answers of a model in a role from which their mean tokens are taken instead."""
ASKING = ("generate", "critique")


@dataclass(frozen=True)
class Estimate:
    """One role's calls and tokens in a run. measured: tokens are the mean of earlier answers, not of the sample's characters."""

    role: str
    model: str
    calls: int
    tokens_in: int
    tokens_out: int
    money: float
    measured: bool


@dataclass
class _Counting:
    """A scripted client that counts what it is asked."""

    inner: Client
    role: str
    counts: Counter[tuple[str, str]]
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
    """Per role behind a server that those stages ask. `state`: folder of the cache, whose answers tell of real tokens."""
    wanted = {stage for stage in stages if stage in ASKING}
    servers = {name: role for name, _, role in settings.shared.players() if role.backend == "openai_compatible"}
    if not wanted or not servers:
        return []
    with tempfile.TemporaryDirectory() as folder:
        counts, scale = _sample(settings, Path(folder), wanted)
    known = _experience(state)
    return [_estimate(name, role, counts, scale, known) for name, role in servers.items() if counts[name, "calls"]]


def _estimate(name: str, role: Role, counts: Mapping[tuple[str, str], int], scale: float, known: Mapping[Any, Any]) -> Estimate:
    calls = counts[name, "calls"]
    per_call = known.get((role.model, name))
    mean_in, mean_out = per_call or (counts[name, "in"] / calls / CHARACTERS, counts[name, "out"] / calls / CHARACTERS)
    tokens_in, tokens_out = (round(mean * calls * scale) for mean in (mean_in, mean_out))
    money = Prices(role.price_in, role.price_out).of(tokens_in, tokens_out)
    return Estimate(name, role.model, round(calls * scale), tokens_in, tokens_out, money, per_call is not None)


def _experience(state: Path) -> dict[tuple[str, str], tuple[float, float]]:
    """(model, role) -> mean tokens in and out, where enough answers are kept."""
    if not (state / NAME).is_file():
        return {}
    cache = Cache(state)
    rows = [row for row in cache.kept() if row["answers"] >= EXPERIENCE]
    cache.close()
    return {(row["model"], row["role"]): (row["tokens_in"] / row["answers"], row["tokens_out"] / row["answers"]) for row in rows}


def _sample(settings: Settings, folder: Path, wanted: set[str]) -> tuple[Counter[tuple[str, str]], float]:
    """Counts of a small run with scripts, and how many times as large the real one is."""
    from tasks.llm.roles import maker

    scripts = {
        name: {**_script(role), "others": [_script(other) for other in role.others]} for name, role in settings.shared.roles.items()
    }
    counts: Counter[tuple[str, str]] = Counter()
    counted = wanted if "generate" in wanted else {"critique"}

    def players(stage: str) -> Callable[..., Client]:
        inner = maker(scripts, folder / "worlds", settings.shared.seed)
        return lambda name, world="": _Counting(inner(name, world), name, counts if stage in counted else Counter())

    def run(stage: str, changes: Mapping[str, int], **inputs: Path) -> float:
        params = settings.params(stage)
        smaller = {name: min(most, getattr(params, name)) for name, most in changes.items() if hasattr(params, name)}
        (folder / stage).mkdir()
        prompt = settings.shared.prompt.model_dump()
        ctx = Context(settings.shared.seed, folder / stage, folder / f"{stage}-scratch", role=players(stage), prompt=prompt)
        module = methods.load(stage, settings.method(stage))
        module.run(module.Inputs(**inputs), params.model_copy(update=smaller), ctx)
        return getattr(params, "problems", 1) / smaller.get("problems", 1)

    run("worlds", {"size": SIZE})
    scale = run("generate", {"problems": PROBLEMS}, worlds=folder / "worlds")
    if "critique" in wanted:
        run("critique", {}, worlds=folder / "worlds", generate=folder / "generate")
    return counts, scale


def _script(role: Role) -> dict[str, Any]:
    return {"backend": "scripted", "errors": role.errors}


def lines(found: Sequence[Estimate], settings: Settings) -> list[str]:
    """The estimate as a table, with what it rests on."""
    if not found:
        return ["no calls to model servers: what would run asks scripts and local checkpoints alone, or is cached"]
    out = [f"{'role':<13} {'model':<28} {'calls':>9} {'tokens in':>13} {'tokens out':>12} {'money':>10}"]
    out += [
        f"{one.role:<13} {one.model:<28} {one.calls:>9,} {one.tokens_in:>13,} {one.tokens_out:>12,} "
        f"{f'{one.money:.2f}' if one.money else 'unknown':>10}{'' if one.measured else ' *'}"
        for one in found
    ]
    tokens, money = sum(one.tokens_in + one.tokens_out for one in found), sum(one.money for one in found)
    unknown = " and what has no price" if any(not one.money for one in found) else ""
    out += ["", f"about {sum(one.calls for one in found):,} calls, {tokens:,} tokens, {money:.2f} in money{unknown}"]
    budget = settings.shared.budget
    if (budget.max_cost and money > budget.max_cost) or (budget.max_tokens and tokens > budget.max_tokens):
        out.append(
            f"That is more than the budget (max_cost {budget.max_cost:g}, max_tokens {budget.max_tokens}): the run would stop early."
        )
    out.append(
        f"An estimate: {PROBLEMS} problems a world were made and played by scripts, and the counts scaled. A real model is refused"
    )
    out.append("more often and says more; answers in the cache cost nothing and are not taken off.")
    if any(not one.measured for one in found):
        out.append(f"* tokens at {CHARACTERS} characters each; after {EXPERIENCE} real answers their mean is used.")
    return out
