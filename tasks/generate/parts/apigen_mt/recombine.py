"""Reverse task recombination (APIGen-MT, section 4.1.3): proven tasks of one customer become one longer task.

Calls and outputs are concatenated, a model writes one instruction for all, and the whole is validated again: pairs can conflict
(an order cannot be cancelled and changed), so the concatenation is replayed before anybody judges it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.contract.client import Message
from tasks.contract.problem import Action, Problem
from tasks.contract.rows import problem_of
from tasks.generate.parts.apigen_mt.prompts import render
from tasks.generate.parts.apigen_mt.proving import Commission
from tasks.generate.parts.apigen_mt.samplers import Material
from tasks.worlds.api.scripts.human import merged

INSTRUCTION: dict[str, Any] = {
    "type": "object",
    "properties": {"thought": {"type": "string"}, "instruction": {"type": "string"}},
    "required": ["instruction"],
}
"""Schema of a recombiner's answer."""


def commission(parts: Sequence[Mapping[str, Any]], number: int, seed: int) -> Commission:
    """The recombination of accepted tasks of one customer, in this order, but for a task that ends the conversation, which comes
    last. A part is a row of BLUEPRINT with its `data`."""
    parts = sorted(parts, key=lambda part: any(call["kind"] == "end" for call in part["actions"]))
    problems = [problem_of(part) for part in parts]
    data = parts[0]["data"]
    material = Material(
        world=problems[0].world,
        split=problems[0].split,
        number=number,
        walk=tuple(name for part in parts for name in part["walk"]),
        family="",
        policies=tuple(dict.fromkeys(name for part in parts for name in part["policy_ids"])),
        data=data,
        persona=problems[0].persona,
        examples=(),
    )
    together = {
        "intent": merged([problem.intent for problem in problems]) if all(problem.intent for problem in problems) else {},
        "actions": _calls(_without_repeated_reads(problems)),
        "outputs": list(dict.fromkeys(output for problem in problems for output in problem.outputs)),
        "required": _calls([call for problem in problems for call in problem.required]),
    }
    wishes = [{"instruction": problem.instruction} for problem in problems]
    opening: tuple[Message, ...] = ({"role": "user", "content": render("recombine", persona=material.persona, tasks=wishes)},)
    parents = tuple(problem.problem_id for problem in problems)
    lineage = tuple(dict.fromkeys((*parents, *(name for problem in problems for name in problem.lineage))))

    def finish(answer: Mapping[str, Any]) -> dict[str, Any]:
        return {**together, "instruction": answer["instruction"]}

    calls = tuple(problem.actions for problem in problems)
    return Commission(material, seed, opening, INSTRUCTION, finish, lineage, parents, calls)


def _without_repeated_reads(problems: Sequence[Problem]) -> list[Action]:
    """All calls in order; a look-up that an earlier task made word for word (finding the customer) is not made again."""
    calls: list[Action] = []
    for problem in problems:
        made = [call for call in calls if call.kind == "read"]
        calls += [call for call in problem.actions if call not in made]
    return calls


def _calls(actions: Sequence[Action]) -> list[dict[str, Any]]:
    return [{"name": action.name, "arguments": action.arguments} for action in actions]
