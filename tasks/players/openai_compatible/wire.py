"""What travels: a request as the body of a chat completion, a server's answer as a message. Pure; nothing here knows a key."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.chat.answers import calls_in_text, whole, without_thought
from tasks.contract.client import Message, Request
from tasks.contract.problem import Image
from tasks.contract.values import STRICT_JSON, UNREADABLE, frozen, whole_text

WISH = "Answer with one JSON value that fits this schema: "
_OWN_ID = re.compile(r"call_(\d{1,5})")


class Garbled(ValueError):
    """The server's answer is not a chat completion."""


class Broken(Garbled):
    """It is one, but says itself that it failed on the way."""


@dataclass(frozen=True)
class Dialect:
    """How a model is asked. structured: json_schema, json_object or prompt, the way a wanted schema is put. temperature: instead of
    the request's, unless None. limit_field: what the server calls the most tokens of an answer. max_tokens: these, instead of the
    request's, unless None. thinking: tokens on top of these. content_beside_calls: what stands as content of a message that only
    calls tools: null, nothing (absent), or an empty text. images: whether the model is shown the pictures in tools' answers."""

    model: str
    structured: str = "json_schema"
    send_seed: bool = True
    temperature: float | None = None
    limit_field: str = "max_tokens"
    max_tokens: int | None = None
    thinking: int = 0
    content_beside_calls: str = "null"
    images: bool = False

    def most(self, request: Request, room: int = 1) -> int:
        """The most tokens of an answer, thoughts included. room: times the usual."""
        return (self.max_tokens or request.max_tokens) * room + self.thinking


@dataclass(frozen=True)
class Reply:
    """An answer that was read. finish: how it ended, as in the OpenAI API: stop, length, tool_calls, content_filter, error. called: it
    holds or tried tool calls. bad: calls of it that cannot be read. from_text: its calls stood in its words. refused: the model or a
    filter in front of it declined."""

    message: Message
    finish: str = "stop"
    called: bool = False
    bad: int = 0
    from_text: bool = False
    refused: bool = False

    @property
    def truncated(self) -> bool:
        """Whether it was cut off at its most tokens."""
        return self.finish == "length"

    @property
    def empty(self) -> bool:
        """Whether nothing was said and nothing called."""
        return not self.message.get("tool_calls") and not self.message["content"].strip()


def body(dialect: Dialect, request: Request, room: int = 1) -> bytes:
    """The JSON that is sent. Keys keep their order, since a server may render a tool's schema as it came. room: times the usual
    number of tokens for the answer."""
    messages = [_sent(message, dialect.content_beside_calls) for message in request.messages]
    if dialect.images:
        messages = _illustrated(request.messages, messages)
    sent: dict[str, Any] = {
        "model": dialect.model,
        "messages": messages,
        "temperature": request.temperature if dialect.temperature is None else dialect.temperature,
        dialect.limit_field: dialect.most(request, room),
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


NOTHING = "(no answer)"
"""Stands for an assistant's message without words or calls: many servers refuse an empty one, and some one that is left out, since user
and assistant must take turns."""


def _sent(message: Message, beside_calls: str) -> Message:
    """A message in the wire's form: arguments as text, and ids of nine letters and digits, which is all that some servers take."""
    role, content, calls = message["role"], message.get("content") or "", message.get("tool_calls")
    out: Message = {"role": role, "content": content}
    if role == "assistant" and not content.strip():
        if not calls:
            out["content"] = NOTHING
        elif beside_calls == "absent":
            del out["content"]
        else:
            out["content"] = None if beside_calls == "null" else ""
    if calls:
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


SHOWN = "Pictures of the answers above:"
"""Begins the message that shows them: the answer of a tool may hold text alone, so they follow the answers as a user's message."""


def _illustrated(messages: Sequence[Message], sent: Sequence[Message]) -> list[Message]:
    """What is sent, with a message of pictures after each run of answers that have some."""
    found: list[Message] = []
    images: list[Image] = []
    for place, (message, one) in enumerate(zip(messages, sent, strict=True)):
        found.append(one)
        images += message.get("images", ())
        last = place + 1 == len(messages) or messages[place + 1]["role"] != "tool"
        if images and last:
            urls = [{"url": f"data:{image.media_type};base64,{image.data}"} for image in images]
            parts = [{"type": "text", "text": SHOWN}, *({"type": "image_url", "image_url": url} for url in urls)]
            found.append({"role": "user", "content": parts})
            images = []
    return found


def _sent_id(name: str) -> str:
    found = _OWN_ID.fullmatch(name)
    return f"call{int(found[1]):05d}" if found else name


def _with_wish(messages: Sequence[Message], schema: Mapping[str, Any]) -> list[Message]:
    """The schema in words, in the system message, as the local client puts it."""
    wish = WISH + json.dumps(schema, sort_keys=True)
    if messages and messages[0]["role"] == "system":
        return [{**messages[0], "content": f"{messages[0]['content']}\n\n{wish}"}, *messages[1:]]
    return [{"role": "system", "content": wish}, *messages]


# --- what comes back ---------------------------------------------------------------------------------------------------------

_FINISHES = {
    "length": r"length|max_?(output_?)?tokens|model_length|token_limit",
    "content_filter": r"content_?filter.*|safety|recitation|prohibited_content|blocklist|spii|image_safety|guardrail\w*|refusal"
    r"|sensitive",
    "error": r"error|fail\w*|abort\w*|cancel\w*|time_?out|network_error|insufficient_system_resource|malformed_function_call"
    r"|unexpected_tool_call|internal\w*|engine_overloaded|repetition_truncation|unknown|other",
}
"""How servers spell the ends of an answer that are not its own; whatever else they say is a stop."""
_LONGEST_COUNT = 10**12
"""Tokens; a number beyond it is no count."""


def text_of(body: bytes) -> str:
    """A body as text; bytes that are none become replacement characters."""
    return body.decode("utf-8-sig", errors="replace")


def parse(text: bytes | str) -> Any:
    """A body as JSON. Raises Garbled."""
    readable = text_of(text) if isinstance(text, bytes) else text
    try:
        return json.loads(readable)
    except (ValueError, RecursionError) as error:
        raise Garbled(f"its answer is not a chat completion ({type(error).__name__}): {_start(readable)}") from None


def take(text: bytes | str) -> dict[str, Any]:
    """`checked` of a body. Raises Garbled, and Broken as a kind of it."""
    return checked(parse(text))


def checked(answer: Any) -> dict[str, Any]:
    """What of a server's answer is kept: message, finish_reason, tokens in and out (None without usage), and who the server says
    answered. It is checked first: a file can hold it, and `read` makes an answer of it. Raises Garbled for what is no chat
    completion, Broken for one that failed on the way."""
    try:
        choice = _choice(answer)
        message = _kept_message(choice.get("message") or {})
        usage = answer.get("usage") or {}
        finish = _finish(choice.get("finish_reason"), message)
    except Broken:
        raise
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise Garbled(f"its answer is not a chat completion ({type(error).__name__}): {_start(answer)}") from None
    silent = not any(message.values())
    if not choice.get("message") and finish != "content_filter":
        raise Broken(f"its answer holds no message: {_start(answer)}")
    if finish == "error" or (silent and (answer.get("error") or choice.get("error"))):
        raise Broken(f"its answer failed on the way (finish_reason {_start(choice.get('finish_reason'))})")
    return {
        "message": message,
        "finish_reason": finish,
        "tokens": [_count(usage, "prompt_tokens"), _count(usage, "completion_tokens")],
        "by": [whole_text(one)[:200] for name in ("model", "system_fingerprint") if isinstance(one := answer.get(name), str) and one],
    }


def _choice(answer: Any) -> dict[str, Any]:
    """The first choice. Raises Broken when there is none, as gateways answer to a single request that its model's maker blocked."""
    choices = answer["choices"]
    if choices is None or choices == []:
        raise Broken(f"its answer holds no choices: {_start(answer)}")
    return dict(choices[0])


def _kept_message(message: Any) -> dict[str, Any]:
    """The parts of a message that are read; calls in the form that most servers have, each with its arguments as text."""
    found = {"content": whole(message.get("content")), "refusal": whole(message.get("refusal"))}
    frozen(found)
    calls = message.get("tool_calls") or message.get("function_call")
    if calls:
        found["tool_calls"] = [_kept_call(call) for call in (calls if isinstance(calls, list) else [calls])]
    return {name: value for name, value in found.items() if value}


def _kept_call(call: Any) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, dict) else call
    if not isinstance(function, dict):
        return {"function": {"name": "", "arguments": _text_of(function)}}
    name, arguments = function.get("name"), function.get("arguments")
    return {
        "function": {
            "name": whole_text(name) if isinstance(name, str) else "",
            "arguments": None if arguments is None else _text_of(arguments),
        }
    }


def _text_of(value: Any) -> str:
    """A value as text, JSON where it is not text already."""
    try:
        return whole_text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    except (ValueError, RecursionError):
        return "(nested without end)"


def _finish(reason: Any, message: Mapping[str, Any]) -> str:
    """How an answer ended, in the words of the OpenAI API."""
    text = reason.strip().lower().replace("-", "_") if isinstance(reason, str) else ""
    for finish, spelled in _FINISHES.items():
        if re.fullmatch(spelled, text) and not (text in ("unknown", "other") and message):
            return finish
    return "tool_calls" if message.get("tool_calls") else "stop"


def _count(usage: Any, name: str) -> int | None:
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= _LONGEST_COUNT else None


def _start(value: Any) -> str:
    """The beginning of a value, for a message."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = "(nested without end)"
    text = whole_text(text)
    return repr(text if len(text) <= 80 else text[:77] + "...")


def read(kept: Mapping[str, Any], first_call: int, offered: bool = False) -> Reply:
    """An answer as a message of the house: arguments are dicts, and calls are numbered call_<first_call> and on, so that a
    conversation reads the same whatever ids a server draws. What a model thought before it spoke is not part of what was said. Where
    tools were offered, calls that a server without a tool parser left in the text are read out of it.

    Of several calls, one that cannot be read stands in its place with what was written, as {"unreadable": text}, and says why under
    `unreadable`, so that it fails like any other bad call and the good ones count. When none can be read they come back as plain
    content. Raises Broken for an answer that failed on the way, which only a file of an earlier version can hold.
    """
    try:
        message = _kept_message(kept["message"])
        finish = _finish(kept.get("finish_reason"), message)
        content, refusal = _text(message.get("content")), message.get("refusal")
        written = whole(kept["message"].get("tool_calls") or kept["message"].get("function_call"))
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise Broken(f"what is kept is no answer ({type(error).__name__})") from None
    if finish == "error":
        raise Broken("the answer failed on the way (finish_reason 'error')")
    refused = bool(refusal) or finish == "content_filter"
    answer: Message = {"role": "assistant", "content": content or (refusal if isinstance(refusal, str) else "")}
    raw = message.get("tool_calls") or []
    in_words: list[dict[str, Any]] = []
    if offered and not raw:
        content, in_words = calls_in_text(content)
        raw = [_kept_call(call) for call in in_words]
        answer["content"] = content if in_words else answer["content"]
    calls = [] if refused else [_call(call, number) for number, call in enumerate(raw, first_call)]
    bad = sum("unreadable" in call for call in calls)
    if calls and bad < len(calls):
        answer["tool_calls"] = calls
    elif calls:
        answer["content"] = f"{content}\n{json.dumps(written, ensure_ascii=False)}".strip()
    if in_words and finish == "stop":
        finish = "tool_calls"
    return Reply(answer, finish, called=bool(raw), bad=bad, from_text=bool(in_words), refused=refused)


def _text(content: Any) -> str:
    """Text, or the text parts of a list of parts; without thoughts."""
    if isinstance(content, list):
        parts = (part.get("text") if isinstance(part, dict) else part for part in content)
        content = whole("".join(part for part in parts if isinstance(part, str)))
    return without_thought(content) if isinstance(content, str) else ""


def _call(call: Mapping[str, Any], number: int) -> dict[str, Any]:
    """One call as data: a name, and arguments that are an object without repeated keys, NaN, or anything else that no file can hold.
    One that is no such thing carries what was written and why it cannot be read."""
    name, said = call["function"]["name"], call["function"]["arguments"]
    made: dict[str, Any] = {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": {}}}
    try:
        if not name:
            raise ValueError("it names no tool")
        made["function"]["arguments"] = _arguments(said)
    except (ValueError, RecursionError) as error:
        made["function"] = {"name": name or "unreadable_call", "arguments": {UNREADABLE: said or ""}}
        made["unreadable"] = str(error)
    return made


def _arguments(text: str | None) -> dict[str, Any]:
    """Arguments from their text. Nothing, null and an empty list stand for none: so servers write the call of a tool that takes
    nothing. Text inside text is opened once."""
    if text is None or text.strip() in ("", "null", "[]", '""'):
        return {}
    value = STRICT_JSON.decode(text)
    if isinstance(value, str) and value.strip():
        value = STRICT_JSON.decode(value)
    if not isinstance(value, dict):
        raise ValueError("its arguments are no JSON object")
    value = whole(value)
    frozen(value)
    return dict(value)


def calls_so_far(messages: Sequence[Message]) -> int:
    """How many tool calls a conversation holds: the number of the next one."""
    return sum(len(message.get("tool_calls") or ()) for message in messages)
