"""Errors planted into a good draft of a blueprint, each a systematic mistake that language models make when they write tasks.

A plant takes (draft, data, foreign, rng), where `foreign` holds another customer's rows, and returns the spoilt draft; a draft
that offers no place for the error stays as it is. Identifiers are recognised by their shape (digits replaced by 0), so that
nothing here knows a world.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any

from tasks.players.scripts.script import other_digits

Draft = dict[str, Any]
Plant = Callable[[Draft, Mapping[str, Any], Mapping[str, Any], Random], Draft]

_DIGITS = re.compile(r"\d+")


def shape(text: str) -> str:
    """'#W12-345' and '#W99-001' have the same shape."""
    return re.sub(r"\d", "0", text)


def strings(value: Any) -> Iterator[str]:
    """Every string inside a JSON value, keys of objects included (rows are often keyed by their id)."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from strings(item)


def _identifiers(draft: Draft) -> list[tuple[dict[str, Any], str]]:
    """(arguments, name) of every argument that holds an identifier; the last call first, where wishes are carried out."""
    found = []
    for action in reversed(draft["actions"]):
        for name, value in action["arguments"].items():
            if isinstance(value, str) and _DIGITS.search(value):
                found.append((action["arguments"], name))
    return found


def _exchange(draft: Draft, pool: Mapping[str, Any], rng: Random) -> Draft:
    """Put an identifier of the same shape from `pool` in place of one of the last call's."""
    for arguments, name in _identifiers(draft):
        alike = {text for text in strings(pool) if shape(text) == shape(arguments[name]) and text != arguments[name]}
        if alike:
            arguments[name] = rng.choice(sorted(alike))
            break
    return draft


def _wrong_row(draft: Draft, data: Mapping[str, Any], foreign: Mapping[str, Any], rng: Random) -> Draft:
    return _exchange(draft, data, rng)


def _other_customer(draft: Draft, data: Mapping[str, Any], foreign: Mapping[str, Any], rng: Random) -> Draft:
    return _exchange(draft, foreign, rng)


def _invented_id(draft: Draft, data: Mapping[str, Any], foreign: Mapping[str, Any], rng: Random) -> Draft:
    for arguments, name in _identifiers(draft)[:1]:
        arguments[name] = other_digits(arguments[name], rng)
    return draft


def _dropped_wish(draft: Draft, data: Mapping[str, Any], foreign: Mapping[str, Any], rng: Random) -> Draft:
    if len(draft["actions"]) > 1:
        draft["actions"].pop()
    return draft


def _no_look_up(draft: Draft, data: Mapping[str, Any], foreign: Mapping[str, Any], rng: Random) -> Draft:
    if len(draft["actions"]) > 1:
        draft["actions"].pop(0)
    return draft


def _unsaid_detail(draft: Draft, data: Mapping[str, Any], foreign: Mapping[str, Any], rng: Random) -> Draft:
    for arguments, name in _identifiers(draft):
        if arguments[name] in draft["instruction"]:
            draft["instruction"] = draft["instruction"].replace(arguments[name], "the usual one")
            break
    return draft


def _wrong_output(draft: Draft, data: Mapping[str, Any], foreign: Mapping[str, Any], rng: Random) -> Draft:
    for place, output in enumerate(draft["outputs"]):
        if _DIGITS.search(output):
            draft["outputs"][place] = other_digits(output, rng)
            return draft
    draft["outputs"].append(str(rng.randint(1000, 9999)))
    return draft


def _tool_talk(draft: Draft, data: Mapping[str, Any], foreign: Mapping[str, Any], rng: Random) -> Draft:
    name = draft["actions"][-1]["name"]
    draft["instruction"] = f"{draft['instruction']} Please call {name} for me."
    return draft


def _unknown_tool(draft: Draft, data: Mapping[str, Any], foreign: Mapping[str, Any], rng: Random) -> Draft:
    draft["actions"][-1]["name"] += "_now"
    return draft


def _wrong_type(draft: Draft, data: Mapping[str, Any], foreign: Mapping[str, Any], rng: Random) -> Draft:
    for action in reversed(draft["actions"]):
        for name, value in action["arguments"].items():
            action["arguments"][name] = {"value": value}
            return draft
    return draft


PLANTS: dict[str, tuple[Plant, str]] = {
    "unknown_tool": (_unknown_tool, "calls a tool that does not exist"),
    "wrong_type": (_wrong_type, "gives an argument as an object"),
    "invented_id": (_invented_id, "makes up an identifier in the last call that has one"),
    "other_customer": (_other_customer, "takes an identifier of another customer"),
    "wrong_row": (_wrong_row, "takes another row of the same customer than the instruction means"),
    "no_look_up": (_no_look_up, "leaves out the first call, by which the customer is found"),
    "dropped_wish": (_dropped_wish, "forgets the last call that the instruction asks for"),
    "unsaid_detail": (_unsaid_detail, "uses a detail that the instruction does not tell"),
    "wrong_output": (_wrong_output, "expects an amount in the replies that is not true"),
    "tool_talk": (_tool_talk, "lets the customer name a tool"),
}
"""Error name -> (plant, what it is)."""

REVEALED_BY: dict[str, tuple[str, ...]] = {
    "cut_off": ("format",),
    "unknown_tool": ("format",),
    "wrong_type": ("format",),
    "invented_id": ("execution", "policy", "correctness"),
    "other_customer": ("execution", "policy", "correctness"),
    "wrong_row": ("execution", "policy", "correctness"),
    "no_look_up": ("execution", "policy", "completeness"),
    "dropped_wish": ("correctness", "completeness", "policy", "gate"),
    "unsaid_detail": ("completeness",),
    "wrong_output": ("satisfaction", "policy", "gate"),
    "tool_talk": ("creativity",),
}
"""Error name -> the checks and criteria whose word in a feedback plan points to it."""
