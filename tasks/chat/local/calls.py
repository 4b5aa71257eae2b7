"""Tool calls in the text of a turn: how one chat template writes them (`CallGrammar`), and how they are read back.

Nothing a model wrote is evaluated: texts are cut at the template's own literals, values are read as JSON (or as Python literals, where
the template writes such), and whatever does not fit is a ValueError.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tasks.contract.values import STRICT_JSON, half_character, unfit

Tools = Sequence[Mapping[str, Any]]
"""Tool schemas in the OpenAI shape."""


NAME = "\x00"


@dataclass(frozen=True)
class CallGrammar:
    """The literals between which a template writes calls.

    kind: `object` (one JSON object of name and arguments), `json` (the name, then the arguments as JSON) or `pairs` (the name, then one
    key and value after the other). A turn is `open` call (`between` call)* `after`. A call is its object; or its name, `name_end`, the
    arguments, `close`; an object is also followed by `close`. A pair is `key_open` key `key_end` value `value_end`, with `pair_between`
    between two of them; strings stand between the two `quotes`, which may be empty.
    """

    kind: str
    open: str
    close: str
    between: str = ""
    after: str = ""
    name_end: str = ""
    name_key: str = "name"
    arguments_key: str = "arguments"
    key_open: str = ""
    key_end: str = ""
    value_end: str = ""
    pair_between: str = ""
    quotes: tuple[str, str] = ("", "")
    escaped: bool = False

    def split(self, text: str) -> tuple[str, str | None]:
        """(the words before the first call, the calls), or (text, None) without a call."""
        opening = self.open.strip()
        if not opening:  # a call is a bare object, alone in its turn
            return ("", text) if re.match(r"\s*\{\s*" + re.escape(json.dumps(self.name_key)) + r"\s*:", text) else (text, None)
        found = _anywhere(opening).search(text)
        return (text[: found.start()], text[found.start() :]) if found else (text, None)

    def read(self, text: str, tools: Tools = ()) -> list[dict[str, Any]]:
        """Calls ({"name", "arguments"}) of a text that begins with `open` and ends with `after`; ValueError for anything else."""
        at = _skip(text, 0, self.open)
        calls = []
        while True:
            call, at = self._call(text, at, tools)
            calls.append(_checked(call))
            if not text[at:].strip() or (self.after.strip() and _matches(text, at, self.after)):
                break
            at = _skip(text, at, self.between)
        rest = text[at:].strip()
        if rest != self.after.strip():
            raise ValueError(f"text follows the calls: {rest[:40]!r}")
        return calls

    def _call(self, text: str, at: int, tools: Tools) -> tuple[dict[str, Any], int]:
        if self.kind == "object":
            found, at = _json(text, at)
            if not isinstance(found, dict) or set(found) != {self.name_key, self.arguments_key}:
                raise ValueError(f"a call is an object with {self.name_key} and {self.arguments_key}")
            return {"name": found[self.name_key], "arguments": found[self.arguments_key]}, _skip(text, at, self.close)
        match = re.compile(r"\s*([^\s\"'<>(){}\[\]|,:]+?)(?=\s*" + _pattern(self.name_end or self.close) + ")").match(text, at)
        if not match:
            raise ValueError("a call without a name")
        name, at = match[1], _skip(text, match.end(), self.name_end)
        if self.kind == "json":
            arguments, at = _json(text, at)
        else:
            arguments, at = self._pairs(text, at, _types(name, tools))
        return {"name": name, "arguments": arguments}, _skip(text, at, self.close)

    def _pairs(self, text: str, at: int, types: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        arguments: dict[str, Any] = {}
        while not _matches(text, at, self.close):
            if arguments:
                at = _skip(text, at, self.pair_between)
            at = _skip(text, at, self.key_open)
            end = text.find(self.key_end, at)
            if end < 0:
                raise ValueError("an argument without a value")
            key = text[at:end].strip()
            if key in arguments:
                raise ValueError("a key occurs twice")
            value, at = self._value(text, end + len(self.key_end), types)
            arguments[key] = self._typed(value, types.get(key))
        return arguments, at

    def _value(self, text: str, at: int, types: Mapping[str, Any]) -> tuple[str, int]:
        """The text of a value, and where what follows it begins."""
        opening, closing = self.quotes
        quoted = bool(opening) and text.startswith(opening, at)
        ending = (closing if quoted else "") + self.value_end
        start = at + len(opening) if quoted else at
        depth_free = quoted or not opening
        end = start
        while True:
            if quoted and self.escaped:
                end = _closing(text, start, closing)
                ending = closing + self.value_end
            else:
                end = self._end(text, end, ending) if depth_free else self._balanced(text, end)
            if end < 0:
                raise ValueError("a value is not closed")
            behind = end + len(ending)
            if _matches(text, behind, self.close) or self._next_pair(text, behind, types):
                return (opening if quoted else "") + text[start:end], behind
            if quoted and self.escaped:
                raise ValueError("text follows a value")
            end += 1

    @staticmethod
    def _end(text: str, at: int, ending: str) -> int:
        return text.find(ending, at) if ending else -1

    def _balanced(self, text: str, at: int) -> int:
        """Where a bare value ends: at the first separator or closing literal outside brackets and quotes."""
        opening, closing = self.quotes
        depth = 0
        stops = [one[0] for one in (self.value_end, self.pair_between.strip(), self.close.strip()) if one]
        while at < len(text):
            if depth <= 0 and text[at] in stops:
                return at
            if text.startswith(opening, at):
                end = _closing(text, at + len(opening), closing) if len(opening) == 1 else text.find(closing, at + len(opening))
                at = end + len(closing) if end >= 0 else at + 1
                continue
            if text[at] == '"':
                end = _closing(text, at + 1, '"')
                at = end + 1 if end >= 0 else at + 1
                continue
            depth += (text[at] in "[{(") - (text[at] in "]})")
            at += 1
        return -1

    def _next_pair(self, text: str, at: int, types: Mapping[str, Any]) -> bool:
        """Whether another pair begins here: of a known key where the tool is known."""
        match = _literal(self.pair_between + self.key_open).match(text, at)
        if not match:
            return False
        end = text.find(self.key_end, match.end())
        key = text[match.end() : end].strip() if end >= 0 else ""
        return key in types if types else bool(key) and len(key) < 80

    def _typed(self, text: str, schema: Mapping[str, Any] | None) -> Any:
        opening = self.quotes[0]
        if opening and text.startswith(opening):
            return _unescaped(text, opening) if self.escaped else text[len(opening) :]
        if opening == "" and (schema or {}).get("type") == "string":
            return text
        return _loose_value(text, self.quotes)


def _closing(text: str, at: int, quote: str) -> int:
    """Where the quote stands that closes a string with backslashes, from `at` on; -1 without one."""
    while at < len(text):
        if text[at] == "\\":
            at += 2
        elif text.startswith(quote, at):
            return at
        else:
            at += 1
    return -1


def _unescaped(text: str, quote: str) -> str:
    try:
        return str(ast.literal_eval(text + quote))
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(f"a text that cannot be read: {error}") from None


def _checked(call: dict[str, Any]) -> dict[str, Any]:
    """The call when its parts are what they must be; ValueError otherwise."""
    if not isinstance(call["name"], str) or not call["name"] or not isinstance(call["arguments"], dict):
        raise ValueError("a call's name is a string and its arguments are an object")
    if wrong := unfit(call["arguments"]) or half_character(call["name"]):
        raise ValueError(f"a call that no file can hold: {wrong}")
    return call


def _types(name: str, tools: Tools) -> Mapping[str, Any]:
    for tool in tools:
        function = tool.get("function", tool)
        if function.get("name") == name:
            return (function.get("parameters") or {}).get("properties") or {}
    return {}


def _json(text: str, at: int) -> tuple[Any, int]:
    """The JSON value that begins at `at`, blanks before it apart, and where it ends."""
    while at < len(text) and text[at].isspace():
        at += 1
    return STRICT_JSON.raw_decode(text, at)


def _loose_value(text: str, quotes: tuple[str, str]) -> Any:
    """A bare value: JSON, JSON with other quotes and bare keys, a Python literal, or else the text as it is."""
    for form in (text, _as_json(text, quotes)):
        try:
            return STRICT_JSON.decode(form)
        except (ValueError, RecursionError):
            continue
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return value if isinstance(value, (dict, list, str, int, float, bool, type(None))) else text


def _as_json(text: str, quotes: tuple[str, str]) -> str:
    """Text whose strings stand between `quotes` and whose keys stand bare, as JSON."""
    if len(quotes[0]) < 2:
        return text
    pieces = re.split(re.escape(quotes[0]) + "|" + re.escape(quotes[1]), text)
    return "".join(
        json.dumps(piece)
        if index % 2
        else re.sub(r"([{,]\s*)([^\s\"{}\[\],:]+)\s*:", lambda found: f"{found[1]}{json.dumps(found[2])}:", piece)
        for index, piece in enumerate(pieces)
    )


def _pattern(literal: str) -> str:
    """For a literal whose blanks may be others, or missing."""
    parts = [re.escape(part).replace(re.escape(NAME), r"\S{1,80}?") for part in re.split(r"\s+", literal.strip())]
    return r"\s*".join(parts)


@lru_cache(maxsize=512)
def _anywhere(literal: str) -> re.Pattern[str]:
    """To search with: no blanks in front, over which a search would take hours."""
    return re.compile(_pattern(literal))


@lru_cache(maxsize=512)
def _literal(literal: str) -> re.Pattern[str]:
    return re.compile(r"\s*" + _pattern(literal) + (r"\s*" if literal[-1:].isspace() else ""))


def _matches(text: str, at: int, literal: str) -> bool:
    return text.startswith(literal, at) or bool(_literal(literal).match(text, at))


def _skip(text: str, at: int, literal: str) -> int:
    """Behind the literal that stands at `at`; ValueError when another text does."""
    if text.startswith(literal, at):
        return at + len(literal)
    if not (match := _literal(literal).match(text, at)):
        raise ValueError(f"{literal.strip()!r} is missing before {text[at : at + 40]!r}")
    return match.end()
