"""The scripted human: plays the user of a problem from its intent, by rule, as a pure function of the messages and the seed.

It works from the intent in its request and reads the agent's replies (a model in its place has the system message). It reveals what the
moment asks for, says yes to a summary that shows its details and no to one that does not, never says an id that its intent does
not hold, and gives up on an agent that does not get on. Its words depend on the seed, what it does on the replies alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.contract.client import Message, Request
from tasks.contract.scripts import STOP
from tasks.contract.wording import words
from tasks.worlds.api.scripts.phrases import (
    CLOSING_QUESTION,
    DRIP,
    GREETING,
    INSIST,
    NO,
    OPEN_QUESTION,
    THANKS,
    YES,
    Phrases,
    pick,
)

PATIENCE = 2
"""Unhelpful replies that the human puts up with; at the next one it gives up."""
MAX_LINES = 14
"""Most lines of one human; ours, a full dialogue of three wishes needs nine."""


def merged(intents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One intent of one user from several: their requests in order, everything else from the first."""
    requests = [request for intent in intents for request in intent.get("requests", ())]
    return {**intents[0], "requests": requests, "together": False}


# What an agent's reply wants of the user. The first that matches counts.
_CONFIRM = re.compile(
    r"yes or no|yes/no|\byes\b.*\?|confirm|proceed|\b(shall|should) i\b|go ahead|is (that|this) (right|correct|ok)"
    r"|would you like me to|do you want me to|do you agree"
)
_REFUSAL = re.compile(r"\bsorry\b|cannot|can't|can not|unable|not (able|allowed|possible)|unfortunately")
_DONE = re.compile(r"\bdone\b|completed|(has|have) been|successful|processed")


@dataclass
class _Mind:
    """What the human knows of the talk so far. requests_made: how many requests it has said. hidden: those of them whose `ask` slot is
    still untold. agreed: requests said yes to."""

    intent: Mapping[str, Any]
    phrases: Phrases
    seed: int
    requests_made: int = 0
    hidden: set[int] = field(default_factory=set)
    agreed: set[int] = field(default_factory=set)
    replies: set[str] = field(default_factory=set)
    named: bool = False
    insisted: bool = False
    patience: int = PATIENCE
    line: int = 0

    @property
    def requests(self) -> list[dict[str, Any]]:
        requests: list[dict[str, Any]] = self.intent["requests"]
        return requests

    def choose(self, choices: Sequence[str], *names: object) -> str:
        return str(pick(choices, self.seed, self.line, *names))

    def identity(self) -> str:
        """Who the human is, in the way of its intent; "" where nobody has to say it."""
        way = next((way for way in self.phrases.introductions if way.fits(self.intent)), None)
        self.named = True
        return self.choose(way.sentences, "identity").format(**self.intent) if way else ""

    def asked_for_identity(self, text: str) -> bool:
        return any(way.asked_by.search(text) for way in self.phrases.introductions)

    def request(self, number: int, vague: bool = False) -> str:
        wish = self.phrases.wishes[self.requests[number]["kind"]]
        sentences = wish.vague if vague else wish.sentences(self.intent.get("pool", "open"))
        return self.phrases.say(self.choose(sentences, "request", number), self.requests[number]["slots"])

    def next_requests(self, vague: bool = False) -> str:
        """Say what is due now: all requests when they come together, else the next one."""
        first, last = self.requests_made, len(self.requests) if self.intent.get("together") else self.requests_made + 1
        said = []
        for number in range(first, min(last, len(self.requests))):
            wish = self.phrases.wishes[self.requests[number]["kind"]]
            unclear = vague and number == first and bool(wish.vague)
            if unclear:
                self.hidden.add(number)
            said.append(self.request(number, unclear))
        self.requests_made = last
        return " ".join([said[0], *(f"Also, {_lower(text)}" for text in said[1:])])

    def again(self) -> str:
        """The request in hand once more, in full."""
        number = next((number for number in range(self.requests_made) if number not in self.agreed), max(self.requests_made - 1, 0))
        self.requests_made = max(self.requests_made, number + 1)
        self.hidden.discard(number)
        return self.request(number)


def _lower(text: str) -> str:
    """The first letter small, unless it is the word I."""
    return text if re.match(r"I\b", text) else text[:1].lower() + text[1:]


def human(phrases: Phrases) -> Callable[[Request], Message]:
    """The scripted human of a world with these phrases."""

    def complete(request: Request) -> Message:
        return {"role": "assistant", "content": _line(phrases, request)}

    return complete


def _line(phrases: Phrases, request: Request) -> str:
    intent = request.intent
    if not intent.get("requests"):
        return STOP  # a problem without an intent gives the script nothing to say
    mind = _Mind(intent, phrases, request.seed)
    line = _opening(mind)
    for message in request.messages:
        if message["role"] == "user" and line != STOP:
            mind.line += 1
            line = _answer(mind, str(message.get("content") or ""))
    return line


def _opening(mind: _Mind) -> str:
    style = mind.intent.get("style", "direct")
    greeting = mind.choose(GREETING.get(mind.intent.get("manner", "curt"), ("",)), "greeting")
    if style == "drip":
        return greeting + mind.choose(DRIP, "drip")
    who = f"{mind.identity()} ".lstrip() if style == "full" else ""
    return greeting + who + mind.next_requests(vague=style == "vague")


def _answer(mind: _Mind, reply: str) -> str:
    """The human's next line; every repeated reply costs patience."""
    text = " ".join(reply.lower().split())
    if text in mind.replies:
        mind.patience -= 1
    mind.replies.add(text)
    line = _react(mind, text)
    return STOP if mind.patience < 0 or mind.line >= MAX_LINES else line


def _react(mind: _Mind, text: str) -> str:
    if mind.asked_for_identity(text):
        mind.patience -= mind.named
        return mind.identity()
    if _REFUSAL.search(text) and mind.intent.get("insist") and not mind.insisted and mind.requests_made == len(mind.requests):
        mind.insisted = True
        return mind.choose(INSIST, "insist")
    if CLOSING_QUESTION.search(text):
        return _next_or_stop(mind)
    if (slot := _answer_slot(mind, text)) is not None:
        return slot
    if _CONFIRM.search(text):
        return _confirm(mind, text)
    if OPEN_QUESTION.search(text):
        return mind.next_requests() if mind.requests_made < len(mind.requests) else _unhelpful(mind)
    if _REFUSAL.search(text) or _DONE.search(text):
        return _next_or_stop(mind)
    return _unhelpful(mind)


def _next_or_stop(mind: _Mind) -> str:
    if mind.requests_made >= len(mind.requests):
        return STOP
    return mind.choose(THANKS, "thanks") + mind.next_requests()


def _unhelpful(mind: _Mind) -> str:
    mind.patience -= 1
    if not mind.requests_made:
        return mind.next_requests()
    return mind.again()


def _answer_slot(mind: _Mind, text: str) -> str | None:
    """The answer to a question for a detail that was left out; None when nothing is left out or nothing is asked."""
    for number in sorted(mind.hidden):
        request = mind.requests[number]
        slot = mind.phrases.wishes[request["kind"]].ask
        if any(word in text for word in mind.phrases.asks[slot]):
            mind.hidden.discard(number)
            return mind.phrases.say(mind.choose(mind.phrases.answers[slot], "answer"), request["slots"])
    return None


def _confirm(mind: _Mind, text: str) -> str:
    """Yes when the summary shows the details of a request, no with the details when it does not."""
    shown = set(words(text))
    for number, request in enumerate(mind.requests[: mind.requests_made]):
        if all(set(words(detail)) <= shown for detail in request.get("check", ())):
            if number in mind.agreed:
                continue
            mind.agreed.add(number)
            mind.hidden.discard(number)
            return mind.choose(YES, "yes")
    mind.patience -= 1
    if not mind.requests_made:
        return mind.next_requests()
    return f"{mind.choose(NO, 'no')} {mind.again()}"
