"""What critics, meta-critic and aggregator are asked (MultiCritique, https://arxiv.org/abs/2410.15287, read for agent trajectories).

The response is a trajectory, a location is the number of a message, and the criteria are two-tier: the world's policy rules
and five rules of conduct. The crucial information holds no reference answer. Each part of a question stands as one
line of JSON under its name, so that any reader, model or script, finds it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tasks.critique.core.units import Unit

if TYPE_CHECKING:
    from tasks.worlds.api.runtime import World

CONDUCT = {
    "procedure": "Identify the user and get an explicit yes before changing anything, where the policy asks for it.",
    "completeness": "Do everything the user asked for, and do not stop or hand over while something can still be done.",
    "grounding": "Say and use only numbers and ids that the user or a tool gave.",
    "economy": "Make no call that brings nothing new.",
    "recovery": "When a tool refuses, deal with the refusal; never announce what did not happen.",
}
"""Criteria that hold in every world (ours), beside the policy's own rules."""

KEPT = "Keep the policy's text."
"""The criterion of a policy that has no rules by name."""

PERSONAS = {
    "guard": "identification, permission and confirmation",
    "auditor": "numbers, ids and what the tools really answered",
    "advocate": "whether the user got everything that was asked for",
    "controller": "economy: needless calls, needless refusals and hand-overs",
}
"""Critics by name, each with what it looks at above all (ours, in place of the paper's four different models)."""

CRITIC = (
    "You review how an assistant with tools dealt with its user, message by message and as a whole. The case says in which\n"
    "world that was, and which policy the assistant has to keep.\n"
    "Reviewer: {name}. Look above all at {focus}; report any other flaw you see too.\n"
    'Answer with JSON alone: {{"units": [...]}}, one unit per flaw with location (number of the message), criterion (a key '
    "of the criteria), severity (1 cosmetic to 4 harm done), quote (from the message), description (of the flaw) and "
    'suggestion (what to do instead). {{"units": []}} is the right answer when nothing is wrong.'
)
META_CRITIC = (
    "You judge ONE remark about how an assistant with tools dealt with its user. Classes: 1 correct and useful, 2 correct but minor, 3 "
    "correct at the wrong message, 4 correct with the wrong severity or criterion, 5 right flaw with a wrong suggestion, "
    "6 flaw not present, 7 duplicate, vague or off-topic. The remarks under Context are by others, in random order, and may "
    "be wrong.\n"
    'Answer with JSON alone: {"class": 1 to 7, "why": "...", "fix": {...}}; fix corrects location, criterion, severity or '
    "suggestion for classes 3 to 5."
)
AGGREGATOR = (
    "You merge judged remarks about how an assistant with tools dealt with its user into one critique: keep the best of each, merge "
    "duplicates, apply corrections, drop what is wrong (classes 6 and 7).\n"
    'Answer with JSON alone: {"units": [...]}, each with location, criterion, severity, quote, description, suggestion and '
    "source_ids (ids of the remarks it was made from)."
)
AGAIN = "That answer cannot be used: {problem}. Answer again with JSON alone, exactly in the form that was asked for."


def dump(value: Any) -> str:
    """Compact JSON on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True)
class Case:
    """One trajectory as every question about it shows it. text: the case's line; criteria: allowed criterion names."""

    traj_id: str
    text: str
    n_messages: int
    criteria: tuple[str, ...]


def frame(world: World) -> dict[str, Any]:
    """What is the same in all cases of a world: what it is, with its policy's text, criteria in two tiers, each tool's kind, and what
    it declares of its conventions.

    A policy without numbered rules is one criterion."""
    rules = dict(world.rules) or ({"policy": KEPT} if world.policy.strip() else {})
    return {
        "world": asdict(world.setting),
        "criteria": {"policy": rules, "conduct": CONDUCT},
        "tools": {name: tool.kind for name, tool in world.tools.items()},
        **({"conventions": declared} if (declared := world.conventions.as_json()) else {}),
    }


def case(trajectory: Mapping[str, Any], shared: Mapping[str, Any]) -> Case:
    """A row of TRAJECTORY as a case. Only messages and tool answers enter: never the blueprint, never the outcome."""
    answers = iter(trajectory["calls"])
    talk = [_numbered(n, message, answers) for n, message in enumerate(trajectory["messages"])]
    criteria = tuple(name for tier in shared["criteria"].values() for name in tier)
    return Case(trajectory["traj_id"], "Case:\n" + dump({**shared, "conversation": talk}), len(talk), criteria)


def _numbered(n: int, message: Mapping[str, Any], answers: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {"n": n, "role": message["role"]}
    if message["content"]:
        entry["content"] = message["content"]
    if message["tool_calls"]:
        entry["calls"] = [{"name": c["name"], "arguments": json.loads(c["arguments_json"])} for c in message["tool_calls"]]
    if message["role"] == "tool":
        entry |= {"name": message["name"], "ok": next(answers)["ok"]}
    return entry


def critic_messages(case: Case, name: str) -> list[dict[str, Any]]:
    """The question to one critic."""
    return _question(CRITIC.format(name=name, focus=PERSONAS[name]), case.text)


def meta_messages(case: Case, unit: Unit, context: Sequence[Unit]) -> list[dict[str, Any]]:
    """The question about one unit; `context`: the other critics' units, shuffled before, shown without authors."""
    others = dump([other.remark() for other in context])
    return _question(META_CRITIC, f"{case.text}\n\nUnit:\n{dump(unit.remark())}\n\nContext:\n{others}")


def aggregator_messages(case: Case, units: Mapping[str, Unit]) -> list[dict[str, Any]]:
    """The question to a model that aggregates; `units` by an anonymous id."""
    judged = [
        {
            "id": key,
            **unit.remark(),
            "class": unit.quality_class,
            "weight": unit.weight,
            "why": unit.why,
            "fix": dict(unit.fix),
        }
        for key, unit in units.items()
    ]
    return _question(AGGREGATOR, f"{case.text}\n\nUnits:\n{dump(judged)}")


def _question(system: str, user: str) -> list[dict[str, Any]]:
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]
