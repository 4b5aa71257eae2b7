"""Two conventional shapes of a conversation with tools, and the way back.

messages: what `datasets`, TRL and chat templates read: {"messages": [...], "tools": [...]} in the OpenAI shape, arguments as objects.
sharegpt: {"conversations": [{"from", "value", "about"}], "system", "tools"}, where `from` is human, gpt, function_call or observation.

ShareGPT-like files know neither ids of calls, nor words beside a call, nor several calls in a turn. So a turn's `value` is what their
readers expect: of a call {"name", "arguments"} (a list of these when there are several), of an observation the answer (a list when
there are several). What this leaves out stands in `about`, a JSON text or "", which such readers pass over and `from_sharegpt` uses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

Message = dict[str, Any]


def dump(value: Any) -> str:
    """JSON on one line, keys in their order."""
    return json.dumps(value, ensure_ascii=False)


def to_sharegpt(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A conversation in the ShareGPT-like shape. Raises ValueError for a role that the shape does not have."""
    system = messages[0]["content"] if messages and messages[0]["role"] == "system" else ""
    turns: list[dict[str, str]] = []
    for is_answer, group in groupby(messages[bool(system) :], key=lambda message: message["role"] == "tool"):
        together = list(group)
        turns += [_answers(together)] if is_answer else [_turn(message) for message in together]
    return {"conversations": turns, "system": system, "tools": dump(list(tools))}


def _turn(message: Message) -> dict[str, str]:
    if message["role"] == "user":
        return {"from": "human", "value": message["content"], "about": ""}
    if message["role"] != "assistant":
        raise ValueError(f"a message of role {message['role']!r} has no place in the ShareGPT-like shape")
    calls = message.get("tool_calls") or []
    if not calls:
        return {"from": "gpt", "value": message["content"], "about": ""}
    made = [{"name": call["function"]["name"], "arguments": call["function"]["arguments"]} for call in calls]
    about = {"ids": [call["id"] for call in calls], "content": message["content"]}
    return {"from": "function_call", "value": dump(made[0] if len(made) == 1 else made), "about": dump(about)}


def _answers(messages: Sequence[Message]) -> dict[str, str]:
    contents = [message["content"] for message in messages]
    about = [{key: message[key] for key in ("tool_call_id", "name") if key in message} for message in messages]
    return {"from": "observation", "value": contents[0] if len(contents) == 1 else dump(contents), "about": dump(about)}


def from_sharegpt(row: Mapping[str, Any]) -> tuple[list[Message], list[dict[str, Any]]]:
    """(messages, tools) of a conversation that `to_sharegpt` wrote."""
    messages: list[Message] = [{"role": "system", "content": row["system"]}] if row["system"] else []
    for turn in row["conversations"]:
        about: Any = json.loads(turn["about"] or "null")
        if turn["from"] in ("human", "gpt"):
            messages.append({"role": "user" if turn["from"] == "human" else "assistant", "content": turn["value"]})
        elif turn["from"] == "function_call":
            messages.append(_calls(turn["value"], about))
        else:
            contents = [turn["value"]] if len(about) == 1 else json.loads(turn["value"])
            messages += [{"role": "tool", **own, "content": content} for own, content in zip(about, contents, strict=True)]
    return messages, json.loads(row["tools"])


def _calls(value: str, labels: Mapping[str, Any]) -> Message:
    made = json.loads(value)
    functions = made if isinstance(made, list) else [made]
    calls = [{"id": name, "type": "function", "function": one} for name, one in zip(labels["ids"], functions, strict=True)]
    return {"role": "assistant", "content": labels["content"], "tool_calls": calls}
