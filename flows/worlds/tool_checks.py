"""Checks of a world's tools as an API: each can be called as it is described, hosted models take its name, no answer is endless."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from flows.worlds.report import Check, Finding, short
from flows.worlds.sample import FORMATS, Attempt, Call, Sample
from tasks.worlds.adapters.adapted import MOST_TOOLS
from tasks.worlds.api.calls import CUT
from tasks.worlds.api.tools import Refused, Tool

NAME_LENGTH = 64
"""Characters of a tool's name that hosted APIs take (OpenAI, Anthropic and Gemini agree on it)."""
_NAME = re.compile(rf"[a-zA-Z0-9_-]{{1,{NAME_LENGTH}}}")
_ARGUMENT = re.compile(rf"[a-zA-Z0-9_.-]{{1,{NAME_LENGTH}}}")
_WHOLE = re.compile(rf"\n\[{re.escape(CUT)}: [\d,]+ of ([\d,]+) characters")


# --- names ---


def names(tools: Mapping[str, Tool], places: Mapping[str, str]) -> Check:
    """Every tool has a name that hosted APIs take, and keeps its own when clients replace what they do not take by "_"."""
    findings = [_bad_name(name, places.get(name, "")) for name in tools if not _NAME.fullmatch(name)]
    alike: dict[str, list[str]] = defaultdict(list)
    for name in tools:
        alike[re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:NAME_LENGTH]].append(name)
    for shared, several in alike.items():
        if len(several) > 1:
            what = f"tools {' and '.join(map(repr, several))} are all {shared!r} to clients that replace what hosted APIs refuse"
            findings.append(Finding(places.get(several[0], ""), what, "rename all but one, or offer one of them alone"))
    for name, tool in tools.items():
        odd = [key for key in tool.parameters.get("properties", {}) if not _ARGUMENT.fullmatch(key)]
        if odd:
            what = f"tool {name}: hosted APIs refuse the argument names {', '.join(map(repr, odd))}"
            findings.append(Finding(places.get(name, ""), what, "use letters a to z, digits, underscores, dots and dashes, at most 64"))
    if len(tools) > MOST_TOOLS:
        what = f"{len(tools)} tools, and hosted APIs take {MOST_TOOLS} in one request"
        findings.append(Finding("", what, "leave out those that no problem needs, or make one tool with an argument out of several"))
    return Check("names", f"{len(tools)} tools, looked at as hosted APIs do (letters, digits, _ and -, at most 64)", tuple(findings))


def _bad_name(name: str, where: str) -> Finding:
    odd = "".join(dict.fromkeys(re.sub(r"[a-zA-Z0-9_-]", "", name)))
    why = [f"it holds {odd!r}"] if odd else []
    why += [f"it has {len(name)} characters"] if len(name) > NAME_LENGTH else []
    what = f"hosted APIs refuse the name of tool {name!r}: {' and '.join(why) or 'it is empty'}"
    told = "allowed are a-z, A-Z, 0-9, _ and -, 1 to 64 characters: rename it where it is defined, or leave it out of the tools offered"
    return Finding(where, what, told)


# --- calls as described ---


def described(sample: Sample) -> Check:
    """Some arguments that fit each tool's schema are taken by its check: ground truths, guesses, and arguments made from the schema."""
    findings, unknown = [], []
    for name, tool in sample.world.tools.items():
        refused, made = _refused(tool, [call.action.arguments for call in sample.calls if call.action.name == name])
        if refused is None:
            continue
        if made is None:
            unknown.append(name)
            continue
        what = f"tool {name} cannot be called as it is described: {made!r} fits its schema, and is refused: {refused}"
        findings.append(Finding(sample.place(name), what, "make the types of its arguments and their description say the same"))
    notes = (f"no arguments could be made for {', '.join(unknown)}; give a problem that calls them",) if unknown else ()
    count = len(sample.world.tools)
    said = f"{count - len(findings) - len(unknown)} of {count} tools take arguments that are made to their schema"
    return Check("described", said, tuple(findings), notes)


def _refused(tool: Tool, known: Iterable[Any]) -> tuple[str | None, Any]:
    """(why every candidate is refused, one that fits the schema): (None, None) when one is taken, made None when none was found."""
    made = [arguments for full in (False, True) if (arguments := _made(tool.parameters, full)) is not None]
    why = None
    for arguments in (*known, *made):
        try:
            tool.validate(arguments)
            return None, None
        except Refused as error:
            why = str(error)
    return why or "no arguments fit", made[0] if made else None


def _made(parameters: Mapping[str, Any], full: bool) -> Any:
    """Arguments that fit a schema, the required ones or all; None when none could be made."""
    from jsonschema import Draft202012Validator

    try:
        arguments = _value({"type": "object", **parameters}, parameters, full, 0)
        return arguments if Draft202012Validator(parameters).is_valid(arguments) else None
    except Exception:  # a schema that nobody can read: that is told by the checks of schemas
        return None


class _Unmade(ValueError):
    """No value was made for a schema."""


def _value(schema: Any, root: Mapping[str, Any], full: bool, depth: int) -> Any:
    """A value that fits a schema, as far as its plain keywords tell."""
    if not isinstance(schema, Mapping) or depth > 8:
        if schema is True:
            return "x"
        raise _Unmade
    if "$ref" in schema:
        return _value(_at(root, str(schema["$ref"])), root, full, depth + 1)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("enum", "examples"):
        if schema.get(key):
            return schema[key][0]
    for key in ("anyOf", "oneOf"):
        rest = {name: value for name, value in schema.items() if name != key}
        for part in schema.get(key, ()):
            try:
                return _value({**rest, **part}, root, full, depth + 1)
            except _Unmade:
                continue
    kinds = schema.get("type", "object" if "properties" in schema else "array" if "items" in schema else "string")
    kind = kinds if isinstance(kinds, str) else next((one for one in kinds if one != "null"), "null")
    if kind not in _OF_KIND:
        raise _Unmade
    return _OF_KIND[kind](schema, root, full, depth)


def _at(root: Mapping[str, Any], pointer: str) -> Any:
    if not pointer.startswith("#"):
        raise _Unmade
    found: Any = root
    for part in pointer[1:].split("/")[1:]:
        found = found[part.replace("~1", "/").replace("~0", "~")]
    return found


def _object(schema: Mapping[str, Any], root: Mapping[str, Any], full: bool, depth: int) -> dict[str, Any]:
    required, found = schema.get("required", ()), {}
    for name, one in schema.get("properties", {}).items():
        if name in required or full:
            try:
                found[name] = _value(one, root, full, depth + 1)
            except _Unmade:
                if name in required:
                    raise
    return found


def _array(schema: Mapping[str, Any], root: Mapping[str, Any], full: bool, depth: int) -> list[Any]:
    count = max(int(schema.get("minItems", 0)), int(full and schema.get("maxItems", 1) > 0))
    first = [_value(one, root, full, depth + 1) for one in schema.get("prefixItems", ())][:count]
    return first + [_value(schema.get("items", True), root, full, depth + 1) for _ in range(count - len(first))]


def _string(schema: Mapping[str, Any], *_: Any) -> str:
    if "pattern" in schema:
        raise _Unmade
    text = FORMATS.get(schema.get("format", ""), "x")
    return text.ljust(int(schema.get("minLength", 0)), "x")


def _number(schema: Mapping[str, Any], *_: Any) -> float:
    step = schema.get("multipleOf", 1)
    low = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf))
    high = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf))
    if low == -math.inf:
        low = min(step, high)
    number: float = math.ceil(low / step) * step
    return number + step if number == schema.get("exclusiveMinimum") else number


_OF_KIND: dict[str, Callable[..., Any]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "number": _number,
    "integer": lambda *schema: int(_number(*schema)),
    "boolean": lambda *_: True,
    "null": lambda *_: None,
}


# --- answers ---


def answers(sample: Sample, calls: Sequence[Call], attempts: Sequence[Attempt], longest: int) -> Check:
    """No tool answered more than `longest` characters; tools whose every call was refused are told."""
    sizes: dict[str, tuple[int, Call]] = {}
    tried: dict[str, list[Attempt]] = defaultdict(list)
    for call, attempt in zip(calls, attempts, strict=True):
        name, size = call.action.name, _size(attempt.content)
        tried[name].append(attempt)
        if size > sizes.get(name, (-1, call))[0]:
            sizes[name] = size, call
    findings = [
        Finding(
            sample.place(name),
            f"tool {name} answers {size:,} characters when it is called as {short(call.words)}; what is beyond {longest:,} is cut",
            "let it answer less (a filter, a page, fewer fields), or raise worlds.freeze.longest_answer if models have the room",
        )
        for name, (size, call) in sizes.items()
        if size > longest
    ]
    notes = [
        f"every call of {name} was refused, the last one with {short(many[-1].content)}: give a problem whose ground truth calls it"
        for name, many in tried.items()
        if not any(attempt.ok for attempt in many)
    ]
    most = max(sizes, key=lambda name: sizes[name][0], default="")
    said = f"the longest is {most}'s, {sizes[most][0]:,} characters; at most {longest:,}" if most else "no tool was called"
    return Check("answers", said, tuple(findings), tuple(notes))


def _size(content: str) -> int:
    """Characters of an answer before it was cut."""
    whole = _WHOLE.search(content[-200:])
    return int(whole[1].replace(",", "")) if whole else len(content)
