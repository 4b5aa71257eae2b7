"""The system prompts of the two who talk. The agent's carries as much of a world's tools and policy as the params say; the human's
carries what a person would be told.

Real models get everything; the tiny model of the quickstart learns its worlds by heart and gets one line. The words are those of
`tasks/worlds/api/prompts/agent.jinja`; tools in full are written by the checkpoint's own chat format (`tools_of`), as by a server that
is given tools=.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.contract.agent import World
from tasks.contract.params import BadInput, nearest
from tasks.contract.problem import Problem, Setting
from tasks.contract.scripts import STOP
from tasks.worlds.api.prompts import render

ALLOWED = {"tools": ("full", "names", "none"), "policy": ("full", "none")}


def check_prompt(prompt: Mapping[str, str]) -> None:
    """Raise BadInput unless `prompt` says, with known words, how much of the tools and of the policy to carry."""
    for key, value in prompt.items():
        if key not in ALLOWED:
            raise BadInput(f"prompt: unknown key {key!r}.{nearest(key, ALLOWED)} Known keys: {', '.join(ALLOWED)}.")
        if value not in ALLOWED[key]:
            raise BadInput(f"prompt.{key} = {value!r}: allowed are {', '.join(ALLOWED[key])}.{nearest(value, ALLOWED[key])}")
    if missing := [key for key in ALLOWED if key not in prompt]:
        raise BadInput(f"prompt: {', '.join(missing)} is missing; it says how much of it the system prompt carries.")


def system_message(world: World, prompt: Mapping[str, str]) -> str:
    """The text of the system turn: a line that names the world, then its policy and the names of its tools as far as `prompt` says.

    prompt: {"tools": full | names | none, "policy": full | none}; BadInput otherwise. Tools in full are not in it: `tools_of`.
    """
    check_prompt(prompt)
    policy = world.policy.strip() if prompt["policy"] == "full" else ""
    names = list(world.tools) if prompt["tools"] == "names" else []
    return render("agent", world=world.name, policy=policy, names=names)


def tools_of(world: World, prompt: Mapping[str, str]) -> list[dict[str, Any]]:
    """The schemas that the chat format writes into the prompt: all of the world's with tools: full, else none."""
    return world.schemas() if prompt["tools"] == "full" else []


def human_system(problem: Problem, setting: Setting) -> str:
    """The text of the system turn of whoever plays the human (`human.jinja`, after tau-bench's simulated user): persona, instruction
    and rules; nothing of the intent, the ground truth or the outputs."""
    return render("human", setting=setting, persona=problem.persona, instruction=problem.instruction, stop=STOP)
