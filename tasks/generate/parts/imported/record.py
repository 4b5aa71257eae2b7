"""One recorded conversation in the form that all formats are brought into, and its messages in the OpenAI shape.

Logs differ in how they name who spoke, in whether a call has an id, whether its arguments are text, and where the answers stand. What
comes out has one system message at most, calls with ids and arguments as objects, and answers that say which call they are to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.contract.values import UNREADABLE, whole_text

_HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""What stands in every JSON that has half a character."""

Message = dict[str, Any]
ROLES = {
    **{name: "system" for name in ("system", "developer")},
    **{name: "user" for name in ("user", "human", "customer")},
    **{name: "assistant" for name in ("assistant", "gpt", "agent", "ai", "bot", "model", "chatbot", "function_call", "tool_call")},
    **{name: "tool" for name in ("tool", "function", "observation", "tool_response", "ipython", "tool_result")},
}
"""Who speaks, as logs of several programs name it -> the role of the OpenAI shape."""
PLACES = ("image_url", "image", "input_image", "input_audio", "audio", "file", "input_file", "video")
"""Types of content that is no text; of it stays what it was."""


class Unreadable(ValueError):
    """Why a line or a value is no conversation; the message is for people, and short."""


@dataclass(frozen=True)
class Rating:
    """What somebody thought of a conversation. value: 1 good, 0 bad, or between. kind: thumb, score, reward. text: their words."""

    kind: str
    value: float
    text: str = ""


@dataclass(frozen=True)
class Choice:
    """Of two ends of a conversation the one that somebody preferred; each is messages of the assistant and its tools."""

    chosen: Sequence[Message]
    rejected: Sequence[Message]


@dataclass(frozen=True)
class Truth:
    """What should have been done, where the log says so. instruction: what the user wanted. actions, required: (tool, arguments)."""

    instruction: str
    actions: Sequence[tuple[str, dict[str, Any]]]
    outputs: Sequence[str] = ()
    required: Sequence[tuple[str, dict[str, Any]]] = ()
    name: str = ""


@dataclass(frozen=True)
class Record:
    """A recorded conversation. messages: OpenAI-shaped (`shaped`). tools: names of the tools that were offered, () when the
    log does not say. about: the log's own fields beside the conversation. world: as the log calls its domain.
    without_answers: logs of its shape end in calls, and hold no answers."""

    messages: Sequence[Message]
    tools: Sequence[str] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    world: str = ""
    agent: str = ""
    ratings: Sequence[Rating] = ()
    choices: Sequence[Choice] = ()
    truth: Truth | None = None
    without_answers: bool = False


def json_of(text: str) -> Any:
    """What JSON says, in text that any file can hold. Raises ValueError for what is none."""
    found = json.loads(text)
    if _HALF.search(text):
        return json.loads(whole_text(json.dumps(found, ensure_ascii=False)))
    return found


def shaped(messages: Any, longest: int) -> list[Message]:
    """Messages of a log in the OpenAI shape. longest: characters of one message. An answer to another call than those that were made
    is left out, so that theirs stay without one. Raises Unreadable for what is no conversation."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise Unreadable("no list of messages")
    found: list[Message] = []
    open_calls: list[dict[str, Any]] = []
    for place, message in enumerate(messages):
        one = _one(message, place, len(found))
        if len(one["content"]) > longest:
            raise Unreadable(f"message {place} has {len(one['content']):,} characters (longest_message = {longest:,})")
        if one["role"] == "tool":
            if message.get("tool_call_id") and _is_to_another(one, open_calls):
                continue
            _answering(one, open_calls, place)
        elif calls := one.get("tool_calls"):
            given = [isinstance(call, Mapping) and bool(call.get("id")) for call in _listed(_calls(message))]
            open_calls = [
                {"id": call["id"], "name": call["function"]["name"], "given": has_id} for call, has_id in zip(calls, given, strict=True)
            ]
        if one["role"] == "system" and found:
            continue  # an instruction in the middle was the log's own program's
        found.append(one)
    roles = {one["role"] for one in found}
    if not {"user", "assistant"} <= roles:
        raise Unreadable(f"nobody speaks as {'user' if 'user' not in roles else 'assistant'}")
    return found


def _one(message: Any, place: int, number: int) -> Message:
    if not isinstance(message, Mapping):
        raise Unreadable(f"message {place} is {type(message).__name__}, not an object")
    said = message.get("role") or message.get("from")
    role = ROLES.get(str(said).lower())
    if role is None:
        raise Unreadable(f"message {place} has the role {str(said)[:40]!r}")
    content = text_of(message.get("content", message.get("value")))
    one: Message = {"role": role, "content": content}
    calls = _calls(message)
    if role == "assistant" and calls:
        one["tool_calls"] = [_call(call, place, number, at) for at, call in enumerate(_listed(calls))]
    if role == "tool":
        one["tool_call_id"] = str(message.get("tool_call_id") or message.get("id") or "")
        one["name"] = str(message.get("name") or "")
        if message.get("error") is True or message.get("is_error") is True:
            one["failed"] = True
    return one


def _calls(message: Mapping[str, Any]) -> Any:
    return message.get("tool_calls") or ([message["function_call"]] if message.get("function_call") else [])


def _listed(calls: Any) -> list[Any]:
    if isinstance(calls, str):
        calls = _json(calls)
    return list(calls) if isinstance(calls, Sequence) and not isinstance(calls, str) else [calls]


def _call(call: Any, place: int, number: int, at: int) -> Message:
    if not isinstance(call, Mapping):
        raise Unreadable(f"a call of message {place} is {type(call).__name__}, not an object")
    function = call.get("function")
    function = function if isinstance(function, Mapping) else call
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise Unreadable(f"a call of message {place} has no name")
    named = ("arguments", "parameters", "args", "input")
    arguments: Any = next((function[key] for key in named if function.get(key) is not None), {})
    about = {"name": name, "arguments": arguments_of(arguments)}
    return {"id": str(call.get("id") or f"call_{number}_{at}"), "type": "function", "function": about}


def arguments_of(arguments: Any) -> dict[str, Any]:
    """A call's arguments as an object; what is none stands under UNREADABLE, as where a model writes it."""
    found = _json(arguments or "{}") if isinstance(arguments, str) else arguments
    if isinstance(found, Mapping):
        return dict(found)
    return {} if found is None else {UNREADABLE: str(arguments)}


def _json(text: str) -> Any:
    try:
        return json_of(text)
    except (ValueError, RecursionError):
        return text


def _is_to_another(one: Message, open_calls: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an answer with an id is to none of the calls, all of which have one in the log."""
    known = [call["id"] for call in open_calls if call["given"]]
    return bool(open_calls) and len(known) == len(open_calls) and one["tool_call_id"] not in known


def _answering(one: Message, open_calls: list[dict[str, Any]], place: int) -> None:
    """Find the call that an answer is to: by its id, else by its tool's name, else the first without an answer."""
    by_id = [call for call in open_calls if call["id"] == one["tool_call_id"]]
    by_name = [call for call in open_calls if call["name"] == one["name"]]
    if not open_calls:
        raise Unreadable(f"message {place} answers no call")
    call = (by_id or by_name or open_calls)[0]
    open_calls.remove(call)
    one["tool_call_id"], one["name"] = call["id"], call["name"]


def text_of(content: Any) -> str:
    """The text of a content: of a list of parts those that are text, with a word for each that is none; JSON of any other value."""
    if isinstance(content, str):
        return whole_text(content)
    if isinstance(content, (bytes, bytearray)):
        raise Unreadable("bytes where text belongs")
    if content is None:
        return ""
    if isinstance(content, Sequence):
        return whole_text("\n".join(filter(None, map(_part, content))))
    return whole_text(json.dumps(content, ensure_ascii=False))


def _part(part: Any) -> str:
    if isinstance(part, Mapping):
        for key in ("text", "refusal", "input_text", "output_text"):
            if isinstance(part.get(key), str):
                return str(part[key])
        kind = str(part.get("type", ""))
        return f"[{kind.removeprefix('input_').removesuffix('_url')}]" if kind in PLACES else ""
    return text_of(part)


def calls_of(messages: Iterable[Message]) -> list[tuple[Message, Message | None]]:
    """(call, the message that answers it or None), in the order in which they were made."""
    answers: dict[str, list[Message]] = {}
    kept = list(messages)
    for one in kept:
        if one["role"] == "tool":
            answers.setdefault(one["tool_call_id"], []).append(one)
    found = []
    for one in kept:
        for call in one.get("tool_calls") or ():
            waiting = answers.get(call["id"])
            found.append((call, waiting.pop(0) if waiting else None))
    return found
