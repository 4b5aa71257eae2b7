"""Phrases of scripted people: templates with slots, rendered for the human and parsed by the scripted agent.

A template such as "Cancel order {order_id}, I {reason}." is both a sentence to say and a pattern to recognise. A slot is either a
closed lexicon (value -> words) or a free pattern (an id, an address). Some templates are *reserved*: only test problems use them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from tasks.contract.context import seed_of
from tasks.worlds.api.scripts.introductions import NAME_AND_ZIP, Introduction

_SLOT = re.compile(r"\{(\w+)\}")

CLOSING_QUESTION = re.compile(r"anything else|something else|any other|further (help|question|request|assistance)|else i can")
"""What an agent asks when it thinks that it is done (in lower case)."""
OPEN_QUESTION = re.compile(r"(how|what) (can|may) i|what do you need|how can i (help|assist)|what would you like|what is it about")
"""What an agent asks when it is ready for a wish (in lower case)."""


def pick(choices: Sequence[Any], *names: object) -> Any:
    """One of the choices, by a hash of the names."""
    return choices[seed_of(*names) % len(choices)]


def thing(slot: str) -> str:
    """What people call the row that a slot names: order_id -> order."""
    return slot.removesuffix("_id").replace("_", " ")


@dataclass(frozen=True)
class Wish:
    """How one kind of request is said. open: full sentences. reserved: full sentences of test problems. vague: sentences that
    leave out the slot `ask`, which is told when the agent asks for it. task: the wish in an instruction ("You want to ...")."""

    open: tuple[str, ...]
    reserved: tuple[str, ...]
    vague: tuple[str, ...]
    task: str
    ask: str = ""

    @property
    def slots(self) -> tuple[str, ...]:
        """The slots that a full sentence tells."""
        return tuple(_SLOT.findall(self.open[0]))

    def sentences(self, pool: str) -> tuple[str, ...]:
        """The full sentences of a pool: open or reserved."""
        return self.reserved if pool == "reserved" else self.open


def wish(task: str, vague: str = "", ask: str = "") -> Wish:
    """How people ask for something to be done. task, vague: what, in words that follow "I want to"; vague leaves out the slot `ask`."""
    return Wish(
        open=(f"Please {task}.", f"I want to {task}.", f"I would like to {task}.", f"I need to {task}.", f"Can you help me {task}?"),
        reserved=(f"I am here to {task}.", f"Could you help me to {task}?"),
        vague=(f"I want to {vague}.", f"Can you help me {vague}?") if vague else (),
        task=task,
        ask=ask,
    )


def question(asked_for: str, vague: str = "", ask: str = "") -> Wish:
    """How people ask to know something. asked_for, vague: what, in words that follow "Tell me": "the status of loan {loan_id}"."""
    return Wish(
        open=(f"Tell me {asked_for}.", f"I would like to know {asked_for}.", f"Can you tell me {asked_for}?", f"I need {asked_for}."),
        reserved=(f"I want to hear {asked_for}.", f"Please look up {asked_for}."),
        vague=(f"Can you tell me {vague}?",) if vague else (),
        task=f"know {asked_for}",
        ask=ask,
    )


YES = ("Yes.", "Yes, please.", "Yes, go ahead.", "Yes, do it.")
NO = ("No, that is wrong.", "No, not that.", "No.")
THANKS = ("Thanks. ", "Good. ", "")
GREETING: Mapping[str, tuple[str, ...]] = {
    "polite": ("Good day. ", "Hello. "),
    "friendly": ("Hi! ", "Hi there! "),
    "curt": ("",),
    "worried": ("Hello, I am a bit worried. ", "Please help me. "),
}
"""Manner -> how a conversation is opened. A persona begins with its manner: "polite: a retired teacher"."""
DRIP = ("I need some help.", "I have a request.", "Can you help me?")
INSIST = ("Please make an exception.", "Can you not do it just this once?")

AFFIRMATIVE = re.compile(r"\b(yes|yeah|yep|sure|ok|okay|correct|confirm(ed)?|go ahead|please do|do it|proceed)\b", re.IGNORECASE)
NEGATIVE = re.compile(r"\b(no|not|don't|do not|wrong|stop|wait)\b", re.IGNORECASE)


def agrees(text: str) -> bool:
    """Whether a user's line is an explicit yes."""
    return bool(AFFIRMATIVE.search(text)) and not NEGATIVE.search(text)


@dataclass(frozen=True)
class Phrases:
    """A world's phrases. lexicon: slot -> value -> words. patterns: slot -> regular expression. answers: slot -> templates that
    tell it alone. asks: slot -> words by which a question for it is recognised. introductions: how people say who they are, () where
    nobody has to."""

    wishes: Mapping[str, Wish]
    lexicon: Mapping[str, Mapping[str, str]]
    patterns: Mapping[str, str]
    answers: Mapping[str, tuple[str, ...]]
    asks: Mapping[str, tuple[str, ...]]
    introductions: tuple[Introduction, ...] = (NAME_AND_ZIP,)
    _parsed: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_parsed", lru_cache(maxsize=8192)(self._parse))
        object.__setattr__(self, "_compiled", self._compile())

    def words(self, slot: str, value: str) -> str:
        """How a slot's value is said."""
        return self.lexicon.get(slot, {}).get(value, value)

    def say(self, template: str, slots: Mapping[str, str]) -> str:
        """A template with the words of its slots."""
        return _SLOT.sub(lambda found: self.words(found[1], slots[found[1]]), template)

    def pattern(self, slot: str) -> str:
        """The regular expression of one slot."""
        if slot in self.lexicon:
            spoken = sorted(self.lexicon[slot].values(), key=lambda words: (-len(words), words))
            return "|".join(map(re.escape, spoken))
        return self.patterns[slot]

    def value(self, slot: str, words: str) -> str:
        """The value behind what was said."""
        for value, spoken in self.lexicon.get(slot, {}).items():
            if spoken.lower() == words.lower():
                return value
        return words

    def _regex(self, template: str, flags: int) -> re.Pattern[str]:
        parts = _SLOT.split(template.rstrip(".?!"))
        body = "".join(re.escape(part) if place % 2 == 0 else f"(?P<{part}>{self.pattern(part)})" for place, part in enumerate(parts))
        return re.compile(rf"(?<!\w){body}(?!\w)", flags)

    def _compile(self) -> list[tuple[str, re.Pattern[str]]]:
        pairs = (
            (kind, self._regex(template, re.IGNORECASE))
            for kind, wish in self.wishes.items()
            for template in (*wish.open, *wish.reserved, *wish.vague)
        )
        return list(pairs)

    def parse(self, text: str) -> list[tuple[str, dict[str, str]]]:
        """The wishes in a user's line, in order: (kind, slots told). Copies, so that the caller may add to them."""
        return [(kind, dict(slots)) for kind, slots in self._parsed(text)]

    def _parse(self, text: str) -> tuple[tuple[str, dict[str, str]], ...]:
        compiled: list[tuple[str, re.Pattern[str]]] = self.__dict__["_compiled"]
        found = [(match.start(), -match.end(), kind, match) for kind, regex in compiled for match in regex.finditer(text)]
        return tuple(self._longest(sorted(found, key=lambda item: item[:3])))

    def _longest(self, found: Sequence[tuple[int, int, str, re.Match[str]]]) -> Iterator[tuple[str, dict[str, str]]]:
        end = 0
        for start, negative_end, kind, match in found:
            if start >= end:
                end = -negative_end
                yield kind, {slot: self.value(slot, words) for slot, words in match.groupdict().items()}

    def find(self, slot: str, text: str) -> str | None:
        """The first value of one slot anywhere in a line."""
        match = re.search(rf"(?<!\w)(?:{self.pattern(slot)})(?!\w)", text, re.IGNORECASE if slot in self.lexicon else 0)
        return self.value(slot, match[0]) if match else None
