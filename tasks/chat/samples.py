"""Random conversations with tools, and what real ones hold that breaks chat formats: parallel calls, other scripts, empty texts,
numbers that look like words and words that look like numbers, nested arguments, the format's own markers inside data."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.contract.client import Message

WORDS = (
    "order",
    "W12",
    "please",
    "cancel",
    "it's",
    "25.50",
    "é",
    "日本語",
    "🙂",
    "naïve",
    "الطلب",
    '"quoted"',
    "a\\b",
    "<b>",
    "{x}",
    "100%",
    "x_1",
)
ODD = (
    "",
    "007",
    "true",
    "null",
    "-3",
    "1e5",
    '{"a": 1}',
    "[1, 2]",
    "line\nline",
    "tab\there",
    "'",
    '"',
    "two  blanks",
    "ﬁ ½",
    "\u200bzero",
)
_TEXT = {"type": "string", "description": "A text."}
_PLACE = {"type": "object", "properties": {"street": _TEXT, "zip": _TEXT}, "description": "A place."}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "get_order": {"order_id": _TEXT},
    "change_order": {
        "order_id": _TEXT,
        "count": {"type": "integer", "description": "How many."},
        "price": {"type": "number", "description": "Each."},
        "gift": {"type": "boolean", "description": "Wrapped."},
        "items": {"type": "array", "items": {"type": "string"}, "description": "Names."},
        "place": _PLACE,
    },
    "list_orders": {},
}
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Does {name}.",
            "parameters": {"type": "object", "properties": arguments, "required": list(arguments)},
        },
    }
    for name, arguments in ARGUMENTS.items()
]
"""The tools of every sample, in the OpenAI shape."""


@dataclass(frozen=True)
class Sample:
    """One conversation. system: None for none. messages: without the system's, the last one the assistant's. tools: those that the
    prompt carries: all or none, as params say (`prompt.tools`); calls are made in both cases."""

    name: str
    system: str | None
    messages: list[Message]
    tools: list[dict[str, Any]]


LONG = 20
"""Rounds of the long conversation: words of a user, a call, its result, a reply; so twice as many turns of the assistant."""


def long_sample() -> Sample:
    """A conversation of 2 * LONG turns of the assistant, as long as those that agents have, of short texts that are all different."""
    messages: list[Message] = []
    for number in range(LONG):
        call = {"id": f"call_{number}", "type": "function", "function": {"name": "get_order", "arguments": {"order_id": f"W{number}x"}}}
        messages += [
            {"role": "user", "content": f"Where is parcel{number}x?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "name": "get_order", "content": f"status{number}x"},
            {"role": "assistant", "content": f"It is at place{number}x."},
        ]
    return Sample(f"a conversation of {len(messages)} messages", "You help.", messages, TOOLS)


def samples(count: int, seed: int, markers: Sequence[str], most_calls: int, words_beside_calls: bool) -> list[Sample]:
    """`count` conversations. most_calls: of one turn, 0 for any number; words_beside_calls: whether a turn may hold both."""
    rng = random.Random(f"chat samples {seed}")
    return [_sample(rng, f"conversation {index}", markers, most_calls, words_beside_calls) for index in range(count)]


def _sample(rng: random.Random, name: str, markers: Sequence[str], most_calls: int, words_beside_calls: bool) -> Sample:
    messages: list[Message] = [{"role": "user", "content": _text(rng, markers)}]
    calls = 0
    for _ in range(rng.choice((1, 1, 2, 2, 3))):
        if rng.random() < 0.6:
            number = rng.choice((1, 1, 1, 2, 3)) if not most_calls else rng.randint(1, min(most_calls, 3))
            turn = [_call(rng, calls + index, markers) for index in range(number)]
            words = _reply(rng) if words_beside_calls and rng.random() < 0.4 else ""
            messages.append({"role": "assistant", "content": words, "tool_calls": turn})
            messages += [_result(rng, call, markers) for call in turn]
            calls += number
        else:
            messages += [{"role": "assistant", "content": _reply(rng)}, {"role": "user", "content": _text(rng, markers)}]
    messages.append({"role": "assistant", "content": _reply(rng)})
    return Sample(name, rng.choice((None, "You help.", "You help.\n\nBe brief.")), messages, rng.choice((TOOLS, [])))


def _text(rng: random.Random, markers: Sequence[str]) -> str:
    pieces = rng.choices(WORDS, k=rng.randint(1, 6))
    if rng.random() < 0.3:
        pieces.insert(rng.randint(0, len(pieces)), rng.choice(ODD))
    if markers and rng.random() < 0.3:
        pieces.insert(rng.randint(0, len(pieces)), rng.choice(markers))
    return "" if rng.random() < 0.03 else rng.choice((" ", " ", " ", "\n", "")).join(pieces)


def _reply(rng: random.Random) -> str:
    """Words of the assistant: never empty, and no blanks around them, which several templates cut off."""
    return (
        rng.choice(("Done.", "Ok, ", "I see: ", "1. ", "日本 ")) + rng.choice(WORDS) + rng.choice(("", "\n\n", " ")) + rng.choice(WORDS)
    )


def _call(rng: random.Random, number: int, markers: Sequence[str]) -> Message:
    name = rng.choice(list(ARGUMENTS))
    arguments = {key: _value(rng, schema, markers) for key, schema in ARGUMENTS[name].items() if rng.random() < 0.8}
    return {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def _value(rng: random.Random, schema: dict[str, Any], markers: Sequence[str]) -> Any:
    match schema["type"]:
        case "integer":
            return rng.choice((0, -7, 3, 10**12))
        case "number":
            return rng.choice((0.5, 25.0, -1.25, 12.99, 7))
        case "boolean":
            return rng.random() < 0.5
        case "array":
            return [_value(rng, schema["items"], markers) for _ in range(rng.randint(0, 3))]
        case "object":
            return {key: _value(rng, part, markers) for key, part in schema["properties"].items()}
    return rng.choice(ODD) if rng.random() < 0.2 else _text(rng, markers)


def _result(rng: random.Random, call: Message, markers: Sequence[str]) -> Message:
    content = rng.choice((json.dumps({"status": _text(rng, markers), "n": 3}, ensure_ascii=False), _text(rng, markers), ""))
    return {"role": "tool", "tool_call_id": call["id"], "name": call["function"]["name"], "content": content}
