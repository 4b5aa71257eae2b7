"""What a model answered, read as data: JSON text checked against a schema, or the reason why not.

An answer is never evaluated and never trusted: it is parsed as JSON, checked, and otherwise refused with words that a feedback
prompt can carry. Nothing becomes None quietly; the caller counts the refusals.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tasks.llm import Message

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


def mismatch(value: Any, schema: Mapping[str, Any], where: str = "answer") -> str:
    """The first place where `value` does not fit `schema`; an empty string when it does.

    The part of JSON Schema that Cairn's own schemas use: type, enum, properties, required, additionalProperties (false), items,
    minItems, minimum, maximum.
    """
    if kind := schema.get("type"):
        wanted = _TYPES[kind]
        if not isinstance(value, wanted) or (isinstance(value, bool) and kind != "boolean"):
            return f"{where} should be of type {kind}, got {_short(value)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} should be one of {schema['enum']}, got {_short(value)}"
    if "minimum" in schema and value < schema["minimum"]:
        return f"{where} should be at least {schema['minimum']}, got {_short(value)}"
    if "maximum" in schema and value > schema["maximum"]:
        return f"{where} should be at most {schema['maximum']}, got {_short(value)}"
    if isinstance(value, dict):
        return _mismatch_object(value, schema, where)
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            return f"{where} should have at least {schema['minItems']} entries, got {len(value)}"
        for position, item in enumerate(value):
            if wrong := mismatch(item, schema.get("items", {}), f"{where}[{position}]"):
                return wrong
    return ""


def _mismatch_object(value: dict[str, Any], schema: Mapping[str, Any], where: str) -> str:
    known = schema.get("properties", {})
    for key in schema.get("required", ()):
        if key not in value:
            return f"{where} lacks {key!r}"
    for key, item in value.items():
        if key in known:
            if wrong := mismatch(item, known[key], f"{where}.{key}"):
                return wrong
        elif schema.get("additionalProperties", True) is False:
            return f"{where} has an unknown key {key!r}; known: {', '.join(known)}"
    return ""


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def read_json(message: Message, schema: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """(value, "") when the message holds one JSON object that fits `schema`, else ({}, reason).

    A fenced block (three backquotes, optionally "json") around the object is taken off, as chat models like to write one.
    """
    text = message.get("content")
    if not isinstance(text, str) or not text.strip():
        return {}, "the answer is empty"
    text = text.strip()
    if text.startswith("```") and text.endswith("```") and "\n" in text:
        text = text[text.index("\n") + 1 : -3]
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        return {}, f"the answer is not JSON ({error}): {_short(text)}"
    if not isinstance(value, dict):
        return {}, f"the answer should be a JSON object, got {_short(value)}"
    if wrong := mismatch(value, schema):
        return {}, wrong
    return value, ""


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


THINK, THINK_END = "<think>", "</think>"


def without_thought(text: str, opened: bool = False) -> str:
    """What a model said, without what it thought before it: everything up to the first `</think>`, whether or not `<think>` stands at
    the beginning (some chat templates write that into the prompt).

    opened: the prompt ended with `<think>`, so that an answer without `</think>` is all thought, cut off: "". A `<think>` behind
    other words is text like any other.
    """
    if opened:
        text = THINK + text
    while text.lstrip().startswith(THINK):
        text = text.partition(THINK_END)[2].lstrip()
    thought, closed, said = text.partition(THINK_END)
    return said.lstrip() if closed and THINK not in thought else text
