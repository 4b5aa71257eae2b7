"""Answers that `cairn serve` kept, read back: one by its id, and those that are turns of one conversation together."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Answer = Mapping[str, Any]
"""A line as `tasks.serving.endpoint.kept.Kept` writes it."""


def files(place: Path) -> list[Path]:
    """The files of a folder of kept answers, the oldest first; of a file itself."""
    return sorted(place.glob("*.jsonl")) if place.is_dir() else [place] if place.is_file() else []


def read(place: Path, text: str = "") -> Iterator[Answer]:
    """The answers below a place, the oldest first; with `text` those alone in whose line it stands. A line that a kill cut is passed
    over."""
    for file in files(place):
        with file.open(encoding="utf-8", errors="replace") as stream:
            for line in stream:
                if text in line and (found := _answer(line)) is not None:
                    yield found


def _answer(line: str) -> Answer | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(found, dict) and isinstance(found.get("id"), str) and isinstance(found.get("messages"), list)
    return found if whole and found["messages"] and all(isinstance(one, dict) and "role" in one for one in found["messages"]) else None


def conversations(answers: Sequence[Answer]) -> list[list[Answer]]:
    """The answers of each conversation, its turns in order: a later answer belongs to it whose request repeats what was said before.
    A request that branches off an earlier turn is a conversation of its own, with the turns before it; so is a shadow's answer, which
    nobody ever goes on from."""
    talks: list[list[Answer]] = []
    latest: dict[str, list[Answer]] = {}
    for one in answers:
        turns = [place for place, said in enumerate(one["messages"][:-1]) if said["role"] == "assistant"]
        keys = [_key(one, one["messages"][: place + 1]) for place in turns]
        before = next((latest[key] for key in reversed(keys) if key in latest), [])
        talks.append(talk := [*before, one])
        if not one.get("shadow_of"):
            latest[_key(one, one["messages"])] = talk
    continued = {id(one) for talk in talks if not talk[-1].get("shadow_of") for one in talk[:-1]}
    return [talk for talk in talks if id(talk[-1]) not in continued]


def plain_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages as rows hold them: contents are text, arguments of calls objects ({} for a text that is none)."""
    found = []
    for one in messages:
        message = {**one, "content": one.get("content") or ""}
        if one.get("tool_calls"):
            message["tool_calls"] = [{**call, "function": _function(call["function"])} for call in one["tool_calls"]]
        found.append(message)
    return found


def _function(function: Mapping[str, Any]) -> dict[str, Any]:
    arguments = function["arguments"]
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            arguments = {}
    return {"name": function["name"], "arguments": arguments}


def _key(answer: Answer, messages: Sequence[Mapping[str, Any]]) -> str:
    """What was said, however a client repeats it; and in which conversation, where the server knows it."""
    said = [
        [
            one["role"],
            one["content"],
            [[call["function"]["name"], call["function"]["arguments"]] for call in one.get("tool_calls") or ()],
        ]
        for one in plain_messages(messages)
        if one["role"] != "system"
    ]
    return json.dumps([answer.get("conversation", ""), said], sort_keys=True)
