"""What travels: a request as the body of a chat completion, a server's answer as a message. Pure; nothing here knows a key."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.llm import Message, Request
from tasks.llm.answers import without_thought

WISH = "Answer with one JSON value that fits this schema: "
_OURS = re.compile(r"call_(\d{1,5})")


class Garbled(ValueError):
    """The server's answer is not a chat completion."""


@dataclass(frozen=True)
class Dialect:
    """How a model is asked. structured: json_schema, json_object or prompt, the way a wanted schema is put. temperature: instead of
    the request's, unless None. limit_field: what the server calls the most tokens of an answer. thinking: tokens on top of these."""

    model: str
    structured: str = "json_schema"
    send_seed: bool = True
    temperature: float | None = None
    limit_field: str = "max_tokens"
    thinking: int = 0

    def most(self, request: Request) -> int:
        """The most tokens of an answer, thoughts included."""
        return request.max_tokens + self.thinking


@dataclass(frozen=True)
class Reply:
    """An answer that was read. called: it holds or tried tool calls. truncated: it was cut off at its most tokens. refused: the
    model or a filter in front of it declined."""

    message: Message
    called: bool = False
    truncated: bool = False
    refused: bool = False


def body(dialect: Dialect, request: Request) -> bytes:
    """The JSON that is sent. Keys keep their order, since a server may render a tool's schema as it came."""
    messages = [_sent(message) for message in request.messages]
    sent: dict[str, Any] = {
        "model": dialect.model,
        "messages": messages,
        "temperature": request.temperature if dialect.temperature is None else dialect.temperature,
        dialect.limit_field: dialect.most(request),
    }
    if request.tools:
        sent["tools"] = list(request.tools)
    if dialect.send_seed:
        sent["seed"] = request.seed % 2**31  # some servers take 32 bits
    if request.schema is not None:
        if dialect.structured == "json_schema":
            sent["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": request.schema}}
        else:
            sent["messages"] = _with_wish(messages, request.schema)
            if dialect.structured == "json_object":
                sent["response_format"] = {"type": "json_object"}
    return json.dumps(sent, separators=(",", ":")).encode()


def _sent(message: Message) -> Message:
    """A message in the wire's form: arguments as text, and ids of nine letters and digits, which is all that some servers take."""
    role = message["role"]
    out: Message = {"role": role, "content": message.get("content") or ""}
    if calls := message.get("tool_calls"):
        out["tool_calls"] = [
            {
                "id": _sent_id(call["id"]),
                "type": "function",
                "function": {"name": call["function"]["name"], "arguments": json.dumps(call["function"]["arguments"])},
            }
            for call in calls
        ]
    if role == "tool":
        out["tool_call_id"] = _sent_id(message["tool_call_id"])
        if "name" in message:
            out["name"] = message["name"]
    return out


def _sent_id(name: str) -> str:
    found = _OURS.fullmatch(name)
    return f"call{int(found[1]):05d}" if found else name


def _with_wish(messages: Sequence[Message], schema: Mapping[str, Any]) -> list[Message]:
    """The schema in words, in the system message, as the local client puts it."""
    wish = WISH + json.dumps(schema, sort_keys=True)
    if messages and messages[0]["role"] == "system":
        return [{**messages[0], "content": f"{messages[0]['content']}\n\n{wish}"}, *messages[1:]]
    return [{"role": "system", "content": wish}, *messages]


def take(text: bytes | str) -> dict[str, Any]:
    """What of a server's answer is kept: message, finish_reason, tokens in and out (None without usage), and who the server says
    answered. Raises Garbled."""
    try:
        said = json.loads(text)
        choice = said["choices"][0]
        message = choice["message"]
        kept = {name: message[name] for name in ("content", "tool_calls", "refusal") if message.get(name)}
        usage = said.get("usage") or {}
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise Garbled(f"its answer is not a chat completion ({type(error).__name__}): {_start(text)}") from None
    return {
        "message": kept,
        "finish_reason": choice.get("finish_reason"),
        "tokens": [_count(usage, "prompt_tokens"), _count(usage, "completion_tokens")],
        "by": [str(said.get(name)) for name in ("model", "system_fingerprint") if said.get(name)],
    }


def _count(usage: Any, name: str) -> int | None:
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None


def _start(text: bytes | str) -> str:
    shown = text.decode(errors="replace") if isinstance(text, bytes) else text
    return repr(shown if len(shown) <= 80 else shown[:77] + "...")


def read(kept: Mapping[str, Any], first_call: int) -> Reply:
    """An answer as a message of the house: arguments are dicts, and calls are numbered call_<first_call> and on, so that a
    conversation reads the same whatever ids a server draws. Calls that cannot be read come back as plain content; thoughts at the
    beginning are not part of what was said."""
    message, finish = kept["message"], kept["finish_reason"]
    refusal = message.get("refusal")
    content = _text(message.get("content")) or (refusal if isinstance(refusal, str) else "")
    refused = bool(refusal) or finish == "content_filter"
    raw = message.get("tool_calls") or []
    answer: Message = {"role": "assistant", "content": content}
    if raw and not refused:
        try:
            answer["tool_calls"] = [_call(call, number) for number, call in enumerate(raw, first_call)]
        except (ValueError, RecursionError, LookupError, TypeError):
            answer["content"] = f"{content}\n{json.dumps(raw)}".strip()
    return Reply(answer, called=bool(raw), truncated=finish == "length", refused=refused)


def _text(content: Any) -> str:
    """Text, or the text parts of a list of parts; without thoughts."""
    if isinstance(content, list):
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return without_thought(content) if isinstance(content, str) else ""


def _call(call: Any, number: int) -> dict[str, Any]:
    """One call as data: a name, and arguments that are an object without repeated keys or NaN; ValueError otherwise."""
    name, arguments = call["function"]["name"], call["function"]["arguments"]
    if isinstance(arguments, str):
        arguments = json.loads(arguments or "{}", object_pairs_hook=_unique, parse_constant=_no_constant)
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        raise ValueError("a call's name is a string and its arguments are an object")
    return {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a repeated key")
    return out


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def calls_so_far(messages: Sequence[Message]) -> int:
    """How many tool calls a conversation holds: the number of the next one."""
    return sum(len(message.get("tool_calls") or ()) for message in messages)
