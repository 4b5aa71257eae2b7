"""The agent's system prompt: how much of a world's tools and policy it carries.

Real models get everything; the tiny model of the quickstart learns its worlds by heart and gets one line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tasks.params import BadInput, nearest

if TYPE_CHECKING:
    from tasks.worlds.runtime import World

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


def _tools(world: World, how: str) -> str:
    if how == "none":
        return ""
    if how == "names":
        return "# Tools\n\n" + ", ".join(world.tools)
    # The words of the chat template for tools=, so that a served model reads what it was trained on.
    signatures = "\n".join(json.dumps(schema, ensure_ascii=False) for schema in world.schemas())
    return (
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        f"You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n{signatures}\n</tools>\n\n"
        "For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML "
        'tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
    )


def system_message(world: World, prompt: Mapping[str, str]) -> str:
    """The text of the system turn: a line that names the world, then its policy and its tools as far as `prompt` says.

    prompt: {"tools": full | names | none, "policy": full | none}; BadInput otherwise.
    """
    check_prompt(prompt)
    policy = world.policy.strip() if prompt["policy"] == "full" else ""
    parts = (f"You are the {world.name} agent.", policy, _tools(world, prompt["tools"]))
    return "\n\n".join(part for part in parts if part)
