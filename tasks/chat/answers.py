"""What a model answered, read as data: JSON text checked against a schema, or the reason why not.

An answer is never evaluated and never trusted: it is parsed as JSON, checked, and otherwise refused with words that a feedback
prompt can carry. Nothing becomes None quietly; the caller counts the refusals. What comes out of here, any file can hold: no halves
of characters, no numbers that are not finite, no nesting without end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.contract.client import Message
from tasks.contract.values import DEPTH, frozen, no_constant, whole_text

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
    if lost := message.get("lost"):
        return {}, f"there is no answer ({lost})"
    text = message.get("content")
    if not isinstance(text, str) or not text.strip():
        return {}, "the answer is empty"
    text = text.strip()
    if text.startswith("```") and text.endswith("```") and "\n" in text:
        text = text[text.index("\n") + 1 : -3]
    try:
        value = data(text)
    except ValueError as error:
        return {}, f"the answer is not JSON ({error}): {_short(text)}"
    if not isinstance(value, dict):
        return {}, f"the answer should be a JSON object, got {_short(value)}"
    if wrong := mismatch(value, schema):
        return {}, wrong
    return value, ""


def data(text: str) -> Any:
    """JSON text that a model wrote, as a value that any file can hold. Halves of characters are replaced (`whole`).

    Raises ValueError for what is no JSON, and for what JSON files cannot rely on: NaN, numbers that are not finite or larger than a
    double, more than 64 levels.
    """
    try:
        value = whole(json.loads(text, parse_constant=no_constant))
        frozen(value)
    except RecursionError:
        raise ValueError(f"nested more than {DEPTH} levels deep") from None
    return value


def whole(value: Any, depth: int = DEPTH) -> Any:
    """A JSON value whose texts, names of fields included, hold no halves of characters (`whole_text`). Raises ValueError below `depth`
    levels."""
    if isinstance(value, str):
        return whole_text(value)
    if isinstance(value, (dict, list)) and depth <= 0:
        raise ValueError(f"nested more than {DEPTH} levels deep")
    if isinstance(value, dict):
        return {whole_text(name): whole(item, depth - 1) for name, item in value.items()}
    return [whole(item, depth - 1) for item in value] if isinstance(value, list) else value


THINK = "<think>"
_NAMES = r"think|thinking|thought|reasoning|seed:think"
_THOUGHT = re.compile(rf"\A\s*(?:<({_NAMES})>.*?(?:</\1>\s*|\Z)|\[THINK\].*?(?:\[/THINK\]\s*|\Z))", re.DOTALL)
_END_OF_THOUGHT = re.compile(rf"</({_NAMES})>\s*|\[/THINK\]\s*")


def without_thought(text: str, opened: bool = False) -> str:
    """What a model said, without what it thought before: blocks such as <think>...</think> at the beginning, and everything before a
    closing tag whose opening one is not there (some chat templates write that into the prompt). A block that never ends is all
    thought. Blocks behind other words are text like any other.

    opened: the prompt ended with `<think>`, so that an answer without `</think>` is all thought, cut off: "".

    >>> without_thought("The user greets me.</think>Hi.")
    'Hi.'
    """
    if opened:
        text = THINK + text
    while True:
        while found := _THOUGHT.match(text):
            text = text[found.end() :]
        end = _END_OF_THOUGHT.search(text)
        if not end or _opened(text[: end.start()], end[1]):
            return text
        text = text[end.end() :]


def _opened(before: str, name: str | None) -> bool:
    return (f"<{name}>" if name else "[THINK]") in before


_CALL_MARKS = re.compile(
    r"<tool_call>|</tool_call>|<\|tool_calls?(?:_begin)?(?:_section_begin)?\|>|<｜tool▁calls?▁begin｜>|\[TOOL_CALLS\]|<\|python_tag\|>"
    r"|<function(?:_calls?)?[=>]|<invoke name=|<\|action_start\|>"
)
_FENCED = re.compile(r"```(?:json|tool_call|tool_code|python)?(.*?)```", re.DOTALL)


def looks_like_calls(text: str, tools: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an answer in words holds what should have been a tool call: the marks that models write around calls, or JSON that names
    one of the offered tools with its arguments, alone or in a fenced block."""
    if _CALL_MARKS.search(text):
        return True
    names = {str(tool.get("function", tool).get("name")) for tool in tools}
    return any(_is_call(piece, names) for piece in (text, *_FENCED.findall(text)))


_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


def calls_in_text(text: str) -> tuple[str, list[dict[str, Any]]]:
    """(what is said besides, the calls) of an answer that holds calls between <tool_call> and </tool_call>, each a JSON object with a
    name and arguments: how many models write them, and what a server without a tool parser leaves as it is. (text, []) when there
    are none, or one of them cannot be read."""
    calls = []
    pieces, rest = _between_tags(text)
    for piece in pieces:
        try:
            found = json.loads(piece)
        except (ValueError, RecursionError):
            return text, []
        if not (isinstance(found, dict) and found.keys() == {"name", "arguments"} and isinstance(found["name"], str)):
            return text, []
        calls.append(found)
    return (text, []) if "tool_call>" in rest else (rest, calls)


def _between_tags(text: str) -> tuple[list[str], str]:
    """(what stands between pairs of tags, the rest). Without a pattern, which would take hours over a model's endless blanks."""
    pieces, rest, at = [], "", 0
    while (start := text.find(_OPEN, at)) >= 0 and (end := text.find(_CLOSE, start)) >= 0:
        pieces.append(text[start + len(_OPEN) : end].strip())
        rest, at = rest + text[at:start], end + len(_CLOSE)
    return pieces, (rest + text[at:]).strip()


def _is_call(text: str, names: set[str]) -> bool:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return any(
        isinstance(one, dict)
        and not {"arguments", "parameters", "args"}.isdisjoint(one)
        and any(isinstance(one.get(key), str) and one[key] in names for key in ("name", "function", "tool", "tool_name"))
        for one in (found if isinstance(found, list) else [found])
    )
