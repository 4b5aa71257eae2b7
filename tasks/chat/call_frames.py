"""How a template writes calls, found out by rendering calls whose names, keys and values are known (`grammar`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tasks.chat.local.calls import NAME, CallGrammar
from tasks.contract.client import Message

FIRST, SECOND, KEY, KEY2, VALUE, VALUE2, NUMBER = "qzfirst", "qzsecond", "qzkey", "qzother", "qzvalue", "qzmore", 90817
Turn = Callable[[list[Message]], str]
"""Calls as the text of a turn, without what stands before it and without its end."""


def call(name: str, /, **arguments: Any) -> Message:
    """One call, in the OpenAI shape."""
    return {"id": "call_0", "type": "function", "function": {"name": name, "arguments": arguments}}


class NoGrammar(ValueError):
    """The calls cannot be read out of what the template writes."""


def grammar(turn: Turn, several: bool) -> CallGrammar:
    """The grammar of a template's calls. turn: renders; several: the template writes several in a turn. NoGrammar names what fails."""
    one = turn([call(FIRST, **{KEY: VALUE})])
    at = one.find(FIRST)
    if at < 0 or VALUE not in one:
        raise NoGrammar(f"the template drops tool calls: {one[:80]!r}")
    both = turn([call(FIRST, **{KEY: VALUE}), call(SECOND, **{KEY2: VALUE2})]) if several else ""
    return _object(one, both) or _json(one, both) or _pairs(turn, one, both)


def _object(one: str, both: str) -> CallGrammar | None:
    at = one.rfind("{", 0, one.find(FIRST))
    if at < 0:
        return None
    try:
        found, end = json.JSONDecoder().raw_decode(one, at)
    except ValueError:
        return None
    name = next((key for key, value in found.items() if value == FIRST), "")
    arguments = next((key for key, value in found.items() if value == {KEY: VALUE}), "")
    if not name or not arguments or set(found) != {name, arguments}:
        return None
    close, between, after = _ends(one[end:], _gap_of_objects(both, at, end))
    return CallGrammar("object", open=one[:at], close=close, between=between, after=after, name_key=name, arguments_key=arguments)


def _gap_of_objects(both: str, at: int, end: int) -> str:
    return both[end : both.rfind("{", 0, both.find(SECOND))] if both else ""


def _json(one: str, both: str) -> CallGrammar | None:
    at = one.find(FIRST)
    start = one.find("{", at)
    try:
        found, end = json.JSONDecoder().raw_decode(one, start) if start >= 0 else (None, 0)
    except ValueError:
        return None
    if found != {KEY: VALUE}:
        return None
    close, between, after = _ends(one[end:], both[end : both.find(SECOND)] if both else "")
    return CallGrammar("json", open=one[:at], name_end=one[at + len(FIRST) : start], close=close, between=between, after=after)


def _ends(tail: str, gap: str) -> tuple[str, str, str]:
    """(close, between, after) from what follows the only call and what stands between two."""
    if not gap:
        return tail, "", ""
    close = _common(tail, gap)
    return close, gap[len(close) :], tail[len(close) :]


def _common(one: str, other: str) -> str:
    """What two texts begin with alike."""
    return one[: next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))]


def _pairs(turn: Turn, one: str, both: str) -> CallGrammar:
    name, key, value = one.find(FIRST), one.rfind(KEY), one.rfind(VALUE)
    name = one.rfind(FIRST, 0, key)
    bare = turn([call(FIRST, **{KEY: NUMBER})])
    none = turn([call(FIRST)])
    two = turn([call(FIRST, **{KEY: VALUE, KEY2: VALUE2})])
    if not name < key < value or str(NUMBER) not in bare or KEY2 not in two:
        raise NoGrammar(f"the name, the keys and the values of a call do not follow each other: {one[:120]!r}")
    to_key, to_value, tail = one[name + len(FIRST) : key], one[key + len(KEY) : value], one[value + len(VALUE) :]
    bare_to_value = bare[bare.rfind(KEY) + len(KEY) : bare.find(str(NUMBER))]
    bare_tail = bare[bare.find(str(NUMBER)) + len(str(NUMBER)) :]
    if not to_value.startswith(bare_to_value) or not tail.endswith(bare_tail):
        raise NoGrammar(f"texts and numbers stand between different literals: {one[:120]!r}, {bare[:120]!r}")
    quotes = (to_value[len(bare_to_value) :], tail[: len(tail) - len(bare_tail)])
    nothing = none[none.rfind(FIRST) + len(FIRST) :]
    name_end = _common(nothing, to_key)
    close_all = nothing[len(name_end) :]
    if not bare_tail.endswith(close_all):
        raise NoGrammar(f"calls with and without arguments end in different ways: {one[-60:]!r}, {none[-60:]!r}")
    value_end, key_open = bare_tail[: len(bare_tail) - len(close_all)], to_key[len(name_end) :]
    step = two[two.rfind(VALUE) + len(VALUE) + len(quotes[1]) : two.rfind(KEY2)]
    if not step.startswith(value_end) or not step.endswith(key_open):
        raise NoGrammar(f"the literals between two arguments do not repeat: {two[:160]!r}")
    gap = both[both.rfind(VALUE) + len(VALUE) + len(quotes[1]) + len(value_end) : both.rfind(SECOND)] if both else ""
    close, between, after = _ends(close_all, gap)
    escaped = turn([call(FIRST, **{KEY: f"{VALUE}\n"})])
    return CallGrammar(
        "pairs",
        open=one[:name].replace(FIRST, NAME),
        escaped=bool(quotes[0]) and f"{VALUE}\\n" in escaped,
        close=close,
        between=between.replace(SECOND, NAME),
        after=after,
        name_end=name_end,
        key_open=key_open,
        key_end=bare_to_value,
        value_end=value_end,
        pair_between=step[len(value_end) : len(step) - len(key_open)],
        quotes=quotes,
    )
