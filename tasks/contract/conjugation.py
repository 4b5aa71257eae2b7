"""A conjugation: a text said in other words, and said back. It is data: a dictionary of words, each with what stands for it.

    swap = Conjugation.of({"a0": "b0", "a1": "b1"})
    swap.there("map_3 a1 b0")              # 'map_3 b1 a0'
    swap.back(swap.there(text)) == text    # whatever the text

A word is a run of letters, digits and `_`; what stands between words stays. Every word has exactly one stand-in and stands in for
exactly one, so nothing can be said in two ways and everything can be taken back: where the dictionary leaves that open, the last word
of a chain (a1 -> b1) is answered by its first (b1 -> a1). A dictionary in which two words have one stand-in is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tasks.contract.client import Message
from tasks.contract.params import BadInput, brief

WORD = re.compile(r"\w+")
NAMES = ("properties", "$defs", "definitions")
"""Keywords of a JSON schema whose own keys are names, not keywords."""
SAID = ("required", "enum", "const", "default", "examples", "description", "title")
"""Keywords of a JSON schema whose values are said to whoever calls."""
Say = Callable[[str], str]
"""How a text is said."""


@dataclass(frozen=True)
class Conjugation:
    """words: word -> its stand-in, closed: the same words on both sides. Made by `of`."""

    words: Mapping[str, str]

    @classmethod
    def of(cls, words: Mapping[str, str]) -> Conjugation:
        """The conjugation of a dictionary. BadInput for one that says nothing, that cannot be taken back, or that names no words."""
        if wrong := [word for word in (*words, *words.values()) if not WORD.fullmatch(word)]:
            raise BadInput(f"{brief(wrong[0])} is no word. Allowed: letters, digits and _, without blanks.")
        before = {stand_in: word for word, stand_in in words.items()}
        if len(before) < len(words):
            word, stand_in = next((word, one) for word, one in words.items() if before[one] != word)
            raise BadInput(f"{stand_in!r} stands for {word!r} and for {before[stand_in]!r}, so it could not be said back.")
        if all(word == stand_in for word, stand_in in words.items()):
            raise BadInput("the dictionary changes no word, so nothing would be said in other words.")
        closed = dict(words)
        for last in (stand_in for stand_in in words.values() if stand_in not in words):
            first = last
            while first in before:
                first = before[first]
            closed[last] = first
        return cls(closed)

    @cached_property
    def inverse(self) -> Conjugation:
        """The way back, as a conjugation."""
        return Conjugation({stand_in: word for word, stand_in in self.words.items()})

    def there(self, text: str) -> str:
        """A text in the other words."""
        return WORD.sub(lambda found: self.words.get(found[0], found[0]), text)

    def back(self, text: str) -> str:
        """A text that is in the other words, in its own."""
        return self.inverse.there(text)


def value_said(value: Any, say: Say) -> Any:
    """A value of JSON with every text in it, keys too, said by `say`."""
    if isinstance(value, str):
        return say(value)
    if isinstance(value, Mapping):
        return {say(key): value_said(one, say) for key, one in value.items()}
    return [value_said(one, say) for one in value] if isinstance(value, list | tuple) else value


def message_said(message: Message, say: Say) -> Message:
    """A message with its text, and the names and arguments of its calls, said by `say`; ids of calls and pictures stay."""
    told: dict[str, Any] = {key: value_said(message[key], say) for key in ("content", "name") if key in message}
    calls = [{**call, "function": _call_said(call["function"], say)} for call in message.get("tool_calls") or ()]
    return {**message, **told, **({"tool_calls": calls} if calls else {})}


def _call_said(function: Mapping[str, Any], say: Say) -> dict[str, Any]:
    return {**function, "name": say(function["name"]), "arguments": value_said(function["arguments"], say)}


def schema_said(schema: Any, say: Say) -> Any:
    """A JSON schema with names, values and descriptions said by `say`; its keywords and types stay, as do regular expressions."""
    if isinstance(schema, list):
        return [schema_said(one, say) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    found = {}
    for key, value in schema.items():
        if key in NAMES:
            found[key] = {say(name): schema_said(one, say) for name, one in value.items()}
        else:
            found[key] = value_said(value, say) if key in SAID else schema_said(value, say)
    return found


def tool_said(schema: Mapping[str, Any], say: Say) -> dict[str, Any]:
    """A tool in the OpenAI shape, said by `say`."""
    function = schema["function"]
    own = {key: say(function[key]) for key in ("name", "description") if key in function}
    return {**schema, "function": {**schema_said(function, say), **own}}
