"""Conversations and ground truths with one thing wrong, made from ground truths: what a policy's predicates must be able to see."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import Any

from flows.worlds.sample import Pool
from tasks.contract.problem import Action, Problem
from tasks.contract.trajectory import Trajectory
from tasks.players.authors.scripted.planted import shape, strings
from tasks.worlds.api.arguments import arguments_of
from tasks.worlds.api.runtime import World

DRAWS = 3
"""Other values that are tried for each argument; ours."""


def conversation(world: World, problem: Problem, actions: Sequence[Action], style: str = "") -> Trajectory:
    """A conversation in which the agent makes these calls, each write after it was announced and agreed to.

    style: "silent" asks for no yes, "pairs" makes two calls a turn, "talks" talks in the turns of its calls.
    """
    fork, played = world.fork(), Trajectory(problem=problem, trial=0)
    step = 2 if style == "pairs" else 1
    for place in range(0, len(actions), step):
        turn = actions[place : place + step]
        for action in turn:
            if action.kind == "write" and style != "silent":
                announced = ", ".join(f"{value}" for value in action.arguments.values())
                played.messages.append({"role": "assistant", "content": f"{action.name.replace('_', ' ')}: {announced}. Yes or no?"})
                played.messages.append({"role": "user", "content": "Yes."})
        calls = [
            {"id": f"call_{place + number}", "type": "function", "function": {"name": action.name, "arguments": action.arguments}}
            for number, action in enumerate(turn)
        ]
        content = "One moment." if style == "talks" else ""
        played.messages.append({"role": "assistant", "content": content, "tool_calls": calls})
        for number, action in enumerate(turn):
            result = fork.call(action.name, action.arguments)
            played.calls.append((action, result))
            told = {"role": "tool", "tool_call_id": f"call_{place + number}", "name": action.name, "content": result.content}
            played.messages.append(told)
    played.messages.append({"role": "assistant", "content": f"{'. '.join(problem.outputs)} Anything else?".strip()})
    return played


def other_calls(world: World, actions: Sequence[Action], pool: Pool, rng: Random) -> Iterator[tuple[Action, ...]]:
    """The calls with one left out, made twice, made first, with another value in one argument; hand-overs in place of the last."""
    calls = tuple(actions)
    answers = [value for result in world.replay(calls).results if (value := _json(result.content)) is not None]
    near = sorted({text for answer in answers for text in strings(answer)})
    for place, action in enumerate(calls):
        rest = (*calls[:place], *calls[place + 1 :])
        yield rest
        yield (*calls[: place + 1], *calls[place:])
        yield (action, *rest)
        for arguments in _other_arguments(world, action, pool, near, rng):
            yield (*calls[:place], replace(action, arguments=arguments), *calls[place + 1 :])
    for tool in world.tools.values():
        if tool.kind == "end":
            arguments = {key: pool.draw(tool.name, key, schema, rng) for key, schema in arguments_of(tool.parameters).items()}
            for kept in range(len(calls)):
                yield (*calls[:kept], Action(tool.name, arguments, tool.kind))


def _json(content: str) -> Any:
    """The object or list in an answer; None for text, also for text that begins like one."""
    with suppress(ValueError):
        return value if isinstance(value := json.loads(content), dict | list) else None
    return None


def _other_arguments(world: World, action: Action, pool: Pool, near: Sequence[str], rng: Random) -> Iterator[dict[str, Any]]:
    """The arguments of one call with one of them changed; optional ones that were left out are given too.

    near: texts of the conversation; those that look like values of the argument are tried before all others.
    """
    if action.name not in world.tools:
        return
    for name, schema in arguments_of(world.tools[action.name].parameters).items():
        looks = {shape(text) for text in pool.texts(name)} if schema.get("type") == "string" else set()
        drawn = [pool.draw(action.name, name, schema, rng) for _ in range(DRAWS)]
        for value in schema.get("enum") or [*(text for text in near if shape(text) in looks), *drawn]:
            if action.arguments.get(name) != value:
                yield {**action.arguments, name: value}


def other_problems(problem: Problem) -> Iterator[Problem]:
    """The problem with nothing to do, of another user, and in the split for training."""
    yield replace(problem, actions=tuple(action for action in problem.actions if action.kind == "read"), outputs=(), required=())
    yield replace(problem, lineage=("another", *problem.lineage[1:]))
    yield replace(problem, split="train")
