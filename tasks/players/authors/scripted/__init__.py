"""Scripts of those who write tasks and judge them: generator, judge, feedback, recombiner."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from tasks.contract.client import Client, Request
from tasks.players.authors.scripted.planted import PLANTS, REVEALED_BY
from tasks.players.scripts import people
from tasks.players.scripts.script import Scripted, block, blocks, known_world
from tasks.worlds.api.problem_making import propose, user_context

if TYPE_CHECKING:
    from tasks.contract.problem import Problem
    from tasks.contract.trajectory import Trajectory
    from tasks.worlds.api.runtime import World

_OTHER_IDEAS = 3
"""Tasks of any kind that the generator tries for a customer whose rows allow none of the wanted kind; ours."""
_SENTENCE = re.compile(r"(?<=[.!?]) ")

CATALOGUE: dict[str, dict[str, str]] = {
    "generator": {
        "cut_off": "ends in the middle of the JSON",
        **{name: about for name, (_, about) in PLANTS.items()},
        "ignores_feedback": "leaves an error that the feedback names as it was (the paper's repair probability, reversed)",
        "relapse": "brings in another error of its catalogue when it repairs one",
    },
    "judge": {
        "overlooks_missing_wish": "passes correctness and completeness of a task that forgets a write",
        "dislikes_look_ups": "refuses the creativity of every task without a write",
    },
    "feedback": {"vague": "asks for a better task without a reason"},
    "recombiner": {"forgets_wish": "leaves the last wish out of the combined instruction"},
}
"""role -> error name -> what it is."""


def client(role: str, world: World | None, errors: Mapping[str, float], seed: int) -> Client:
    """The script of one of these roles. errors: error name -> rate in [0, 1]."""
    return Scripted(role, world, dict(errors), seed, _PLAYERS[role])


# --- generator ---------------------------------------------------------------------------------------------------------------


def _generate(me: Scripted, requests: Sequence[Request]) -> list[str]:
    return [_draft(me, request) for request in requests]


def _draft(me: Scripted, request: Request) -> str:
    """The world's own proposal for the sampled customer and walk, with the errors of this attempt in it."""
    world = known_world(me)
    data, walk, family = (block(request, name) for name in ("data", "walk", "family"))
    errors, restarts = _errors_left(me, request, [str(plan) for plan in blocks(request.messages, "feedback")])
    rng = me.rng(request, "draft", restarts)
    draft = deepcopy(propose(world, data, rng, walk or None, family or None))
    for _ in range(_OTHER_IDEAS):
        draft = draft or deepcopy(propose(world, data, rng))
    if not draft:
        return "{}"
    foreign: dict[str, Any] = {}
    if "other_customer" in errors:
        foreign = user_context(world, me.rng(request, "foreign"), world.splits.get(data.get("user_id"), "train"))
    for name, (plant, _) in PLANTS.items():
        if name in errors:
            draft = plant(draft, data, foreign, me.rng(request, "plant", name))
    text = json.dumps(draft, ensure_ascii=False)
    return text[: len(text) // 2] if "cut_off" in errors else text


def _errors_left(me: Scripted, request: Request, plans: Sequence[str]) -> tuple[set[str], int]:
    """(which errors the attempt after these plans has, how often it started over). A plan that names an error's check repairs it,
    unless the generator ignores it; with a repair may come a relapse into another error. A plan that names none of its errors
    makes the generator think of another task for the same customer."""
    left = {error for error in REVEALED_BY if me.errs(request, error)}
    restarts = 0
    for turn, plan in enumerate(plans):
        named = [error for error in sorted(left) if any(word in plan for word in REVEALED_BY[error])]
        restarts += not named
        mended = {error for error in named if not me.errs(request, "ignores_feedback", turn, error)}
        left -= mended
        if mended and me.errs(request, "relapse", turn):
            rates = {error: me.errors.get(error, 0.0) for error in REVEALED_BY if error not in mended}
            if any(rates.values()):
                left.update(me.rng(request, "relapse into", turn).choices(list(rates), list(rates.values())))
    return left, restarts


# --- judge -------------------------------------------------------------------------------------------------------------------


def _judge(me: Scripted, requests: Sequence[Request]) -> list[str]:
    """Each different task is played once, by the world's own human and agent; its votes are read off that conversation."""
    tasks = [block(request, "task") for request in requests]
    keys = [json.dumps(task, sort_keys=True) for task in tasks]
    different = dict(zip(keys, tasks, strict=True))
    played = dict(zip(different, _reference(me, list(different.values())), strict=True))
    return [_vote(me, request, task, played[key]) for request, task, key in zip(requests, tasks, keys, strict=True)]


def _reference(me: Scripted, tasks: Sequence[Mapping[str, Any]]) -> list[Trajectory]:
    """How a faultless agent would serve this customer."""
    from tasks.players.client_agent import ClientAgent
    from tasks.worlds.api.play import play

    world = known_world(me)
    agent = ClientAgent(people.client("agent", world, {}, me.seed), {"tools": "none", "policy": "none"})
    jobs = [(_problem(world, task), 0) for task in tasks]
    return play(world, jobs, agent, people.client("human", world, {}, me.seed), seed=me.seed)


def _problem(world: World, task: Mapping[str, Any]) -> Problem:
    from tasks.contract.problem import Action, Problem

    def actions(key: str) -> tuple[Action, ...]:
        return tuple(Action(call["name"], call["arguments"], world.tools[call["name"]].kind) for call in task[key])

    return Problem(
        problem_id="",
        world=world.name,
        split="train",
        family=task["family"],
        lineage=(),
        persona=task["persona"],
        instruction=task["instruction"],
        intent=task["intent"],
        actions=actions("actions"),
        outputs=tuple(task["outputs"]),
        required=actions("required"),
    )


def _vote(me: Scripted, request: Request, task: Mapping[str, Any], reference: Trajectory) -> str:
    outcome = reference.outcome
    assert outcome is not None  # `play` grades every conversation
    kinds = known_world(me).tools
    unsaid = _underivable(task, block(request, "trace"), " ".join(_leaves(block(request, "policies"))))
    unheard = "" if outcome.outputs and outcome.required else "the customer does not hear or get what is due"
    lost = {
        "correctness": "" if outcome.state else "the change of the data is not what the instruction asks for",
        "completeness": f"nothing tells {unsaid!r}" if unsaid else "",
        "satisfaction": unheard,
        "creativity": _dull(task, kinds),
    }
    writes = sum(kinds[call["name"]].kind == "write" for call in task["actions"])
    done = sum(action.kind == "write" and result.ok for action, result in reference.calls)
    if writes < done:
        lost["completeness"] = lost["completeness"] or "a wish of the instruction is missing in the actions"
        if me.errs(request, "overlooks_missing_wish"):
            lost["correctness"] = lost["completeness"] = ""
    if not writes and me.errs(request, "dislikes_look_ups"):
        lost["creativity"] = "nothing changes"
    votes = {criterion: {"score": int(not why), "reason": why} for criterion, why in lost.items()}
    return json.dumps({**votes, "corrections": "; ".join(why for why in lost.values() if why)})


def _underivable(task: Mapping[str, Any], trace: Sequence[Mapping[str, Any]], rules: str) -> str:
    """The first argument with digits in it that neither instruction nor rules nor an earlier answer tell; "" for none."""
    told = f"{task['instruction']}\n{rules}"
    for step in trace:
        for value in _leaves(step["arguments"]):
            if any(char.isdigit() for char in value) and value not in told:
                return value
        told += "\n" + step["answer"]
    return ""


def _leaves(value: Any) -> list[str]:
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return [leaf for item in items for leaf in _leaves(item)]
    return [] if isinstance(value, bool) else [str(value)]


def _dull(task: Mapping[str, Any], tools: Mapping[str, Any]) -> str:
    if named := [name for name in tools if "_" in name and name in task["instruction"]]:
        return f"no customer says {named[0]!r}"
    single = len(task["actions"]) < 2 and not task["required"] and not task["outputs"]
    return "a single look-up" if single and tools[task["actions"][0]["name"]].kind == "read" else ""


# --- feedback, recombiner ----------------------------------------------------------------------------------------------------


def _feedback(me: Scripted, requests: Sequence[Request]) -> list[str]:
    answers = []
    for request in requests:
        failures = [str(failure) for failure in block(request, "failures")]
        plan = "Improve the task." if me.errs(request, "vague") else "Mend this: " + "; ".join(dict.fromkeys(failures))
        answers.append(json.dumps({"thought": f"{len(failures)} reasons", "summary": plan}, ensure_ascii=False))
    return answers


def _recombine(me: Scripted, requests: Sequence[Request]) -> list[str]:
    """The wishes in one text: who the customer is stands once, and each further wish is led up to."""
    answers = []
    for request in requests:
        wishes = [str(task["instruction"]).strip() for task in block(request, "tasks")]
        if me.errs(request, "forgets_wish"):
            wishes.pop()
        said = dict.fromkeys(_SENTENCE.split(wishes[0]))
        for number, wish in enumerate(wishes[1:]):
            new = [sentence for sentence in _SENTENCE.split(wish) if sentence not in said]
            lead = me.rng(request, "lead", number).choice(("Besides, ", "After that, ", "While you are at it, "))
            said.update(dict.fromkeys([lead + sentence[:1].lower() + sentence[1:] for sentence in new[:1]] + new[1:]))
        answer = {"thought": f"{len(wishes)} wishes, one call", "instruction": " ".join(said)}
        answers.append(json.dumps(answer, ensure_ascii=False))
    return answers


_PLAYERS: dict[str, Callable[[Scripted, Sequence[Request]], list[str]]] = {
    "generator": _generate,
    "judge": _judge,
    "feedback": _feedback,
    "recombiner": _recombine,
}
