"""How scripted people say who they are, for each way in which a world identifies them (`tasks.contract.conventions`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tasks.contract.conventions import Identification

NAME = r"[A-Z][a-z]+ [A-Z][a-z]+"
ZIP = r"\d{5}"


@dataclass(frozen=True)
class Introduction:
    """One way of saying who one is. patterns: field -> regular expression of a value as it is said. sentences: templates that tell
    all fields. question: what the agent asks. asked_by: what such a question looks like, in lower case. task: how an instruction
    begins."""

    by: Identification
    patterns: Mapping[str, str]
    sentences: tuple[str, ...]
    question: str
    asked_by: re.Pattern[str]
    task: str

    @cached_property
    def _compiled(self) -> list[re.Pattern[str]]:
        bodies = [re.escape(sentence.rstrip(".")) for sentence in self.sentences]
        for field, pattern in self.patterns.items():
            bodies = [body.replace(rf"\{{{field}\}}", f"(?P<{field}>{pattern})") for body in bodies]
        return [re.compile(rf"(?<!\w){body}") for body in bodies]

    def find(self, text: str) -> dict[str, str]:
        """Field -> value when a line tells all, {} when it does not."""
        found = next((match for regex in self._compiled if (match := regex.search(text))), None)
        return {field: found[field] for field in self.by.fields} if found else {}

    def fits(self, known: Mapping[str, Any]) -> bool:
        """Whether somebody of whom this is known can introduce themselves so."""
        return all(known.get(field) not in (None, "") for field in self.by.fields)


NAME_AND_ZIP = Introduction(
    Identification(),
    {"name": NAME, "zip": ZIP},
    (
        "I am {name}, zip {zip}.",
        "My name is {name} and my zip is {zip}.",
        "{name}, zip {zip}.",
        "This is {name}, zip code {zip}.",
    ),
    "Please give me your full name and zip code.",
    re.compile(r"\bname\b.*\b(zip|post(al)?)\b|\b(zip|post(al)?)\b.*\bname\b|\bwho are you\b|\bidentity\b", re.DOTALL),
    "You are {name}, zip code {zip}.",
)


def introduction(by: Identification, **fields: tuple[str, str]) -> Introduction:
    """An introduction by fields of any kind. fields: field -> (what people call it, regular expression of a value).

    >>> introduction(Identification("by_badge", ("badge",), "id"), badge=("badge number", r"B\\d+")).question
    'Please give me your badge number.'
    """
    names = {field: fields[field][0] for field in by.fields}
    told = [f"{name} is {{{field}}}" for field, name in names.items()]
    bare = ", ".join(f"{name} {{{field}}}" for field, name in names.items())
    every = "".join(rf"(?=.*\b{re.escape(name)}\b)" for name in names.values())
    return Introduction(
        by,
        {field: fields[field][1] for field in by.fields},
        (f"{_listed(f'my {one}' for one in told).capitalize()}.", f"{bare[0].upper()}{bare[1:]}.", f"I have {bare}."),
        f"Please give me your {_listed(names.values())}.",
        re.compile(rf"{every}|\bwho are you\b|\bidentify yourself\b|\bidentity\b", re.DOTALL),
        f"{_listed(f'your {one}' for one in told).capitalize()}.",
    )


def introduced(ways: Iterable[Introduction], text: str) -> tuple[Introduction, dict[str, str]] | None:
    """The way in which a line tells who somebody is, with the fields; None when it does not."""
    return next(((way, told) for way in ways if (told := way.find(text))), None)


def _listed(parts: Iterable[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last
