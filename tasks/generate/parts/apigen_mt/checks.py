"""Validation stage 1 of APIGen-MT (section 4.1.2): format, execution, policy, in this order, ending at the first failure.

Everything here runs on a fresh fork of the world; the world that is handed in is not touched. A failure is told in words that a
feedback prompt can carry and that begin with the check's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.contract.problem import Action, Problem
from tasks.contract.wording import words
from tasks.worlds.api.problem_making import problem_of
from tasks.worlds.api.tools import Refused

if TYPE_CHECKING:
    from tasks.worlds.api.runtime import World

_CALL = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "arguments": {"type": "object"}},
    "required": ["name", "arguments"],
    "additionalProperties": False,
}
DRAFT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "thought": {"type": "string"},
        "instruction": {"type": "string"},
        "intent": {"type": "object"},
        "actions": {"type": "array", "items": _CALL, "minItems": 1},
        "outputs": {"type": "array", "items": {"type": "string"}},
        "required": {"type": "array", "items": _CALL},
        "family": {"type": "string"},
    },
    "required": ["thought", "instruction", "actions", "outputs"],
}
"""Schema of a generator's answer (thought, q, a_gt, o_gt of the paper; intent, required and family are ours)."""

FAILURES = ("failed_format", "failed_exec", "failed_policy", "failed_committee", "failed_gate", "failed_duplicate")
"""Why a blueprint is refused, in the order in which it is looked at."""


@dataclass(frozen=True)
class Checked:
    """A draft after stage 1. status: "" when every check held, else one of FAILURES, and `why`. problem: None when the format
    is wrong. trace: each call with its answer. diff, state_hash: of the fresh copy after the calls."""

    problem: Problem | None = None
    trace: tuple[dict[str, Any], ...] = ()
    diff: str = ""
    state_hash: str = ""
    status: str = ""
    why: str = ""


def check(world: World, draft: Mapping[str, Any], data: Mapping[str, Any], lineage: Sequence[str] = ()) -> Checked:
    """Format, execution and policy of one draft (a dict that fits DRAFT) for the customer in `data`."""
    if wrong := _format(world, draft):
        return Checked(status="failed_format", why=f"format: {wrong}")
    problem = problem_of(world, draft, data, lineage=tuple(lineage))
    replay = world.replay(problem.actions)
    trace = tuple(
        {"name": action.name, "arguments": action.arguments, "ok": result.ok, "answer": result.content}
        for action, result in zip(problem.actions, replay.results, strict=False)
    )
    checked = Checked(problem, trace, replay.diff, replay.state_hash)
    if not replay.ok:
        return _refused(checked, "failed_exec", f"execution: {'; '.join(map(str, replay.errors))}")
    for rule, holds in world.blueprint_predicates.items():
        if broken := holds(problem, replay, world):
            return _refused(checked, "failed_policy", f"policy {rule}: {broken}")
    return checked


def undone(world: World, parts: Sequence[Sequence[Action]]) -> str:
    """Which of several tasks, made one after the other, leaves no trace (the first of two changes of one address); "" for none.

    A task is undone when the state is the same without its writes: nobody could tell whether it was done.
    """
    whole = world.replay([action for part in parts for action in part]).state_hash
    for number, part in enumerate(parts):
        if any(action.kind == "write" for action in part):
            others = [action for place, one in enumerate(parts) if place != number for action in one]
            if world.replay(others).state_hash == whole:
                return f"what task {number + 1} changes is undone by another"
    return ""


def _refused(checked: Checked, status: str, why: str) -> Checked:
    return Checked(checked.problem, checked.trace, checked.diff, checked.state_hash, status, why)


def _format(world: World, draft: Mapping[str, Any]) -> str:
    """Names of tools and types of arguments, which the schema of the answer cannot know."""
    if not draft["instruction"].strip():
        return "the instruction is empty"
    for output in draft["outputs"]:
        if not words(output):
            return f"the output {output!r} has no word or number, so that nobody can say it"
    for key in ("actions", "required"):
        for number, call in enumerate(draft.get(key, ()), 1):
            tool = world.tools.get(call["name"])
            if tool is None:
                return f"{key} {number}: no tool is called {call['name']!r}; tools: {', '.join(world.tools)}"
            try:
                tool.validate(call["arguments"])
            except Refused as error:
                return f"{key} {number} ({call['name']}): {error}"
    return ""
