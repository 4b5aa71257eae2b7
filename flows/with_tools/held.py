"""The conversations of `cairn serve --with-tools`: which one a request goes on with.

The calls in them are this server's own business, and what predicates judge by, so that no caller may state them: a caller sends what
was lines, and this server knows what was called in between. A request goes on with the conversation that its messages repeat from the
beginning; or with the one that it names, metadata: {"conversation": ID}, the id that came with each answer, and then the new line alone
is enough. A request that is sent again, as OpenAI's clients do by themselves after a while, gets the answer to the one of which nobody
waits for the answer any more; nothing is called twice, and nobody gets into the conversation of another who said the same.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from flows.with_tools.played_world import PlayedWorld
from tasks.worlds.api.conversation import Conversation

MOST = 1024
"""Conversations that are held; of more the one that was not asked for the longest is forgotten."""

BEGIN = "Begin another one with the user's line alone."
Lines = list[tuple[str, str]]
"""(user or assistant, words), in order."""


class Failed(Exception):
    """A request that is not answered. status: HTTP's. conversation: its id, "" where there is none."""

    def __init__(self, status: int, message: str, conversation: str = "") -> None:
        super().__init__(message)
        self.status, self.conversation = status, conversation


@dataclass
class Asker:
    """Whoever sent a request. left: without the answer."""

    left: bool = False


@dataclass
class Held:
    """ended: why it goes on no further. last_request: what it said; last_answer: None while there is none. newest_request,
    asker: what may have to wait yet, and who sent it; waiting: how many requests are not answered."""

    id: str
    talk: Conversation
    world: PlayedWorld
    lock: threading.Lock = field(default_factory=threading.Lock)
    ended: str = ""
    last_request: Lines = field(default_factory=list)
    last_answer: dict[str, Any] | None = None
    newest_request: Lines = field(default_factory=list)
    asker: Asker = field(default_factory=Asker)
    waiting: int = 0

    @property
    def spoken(self) -> Lines:
        """What user and agent said to each other."""
        return [
            (one["role"], str(one["content"] or ""))
            for one in self.talk.played.messages
            if one["role"] == "user" or (one["role"] == "assistant" and not one.get("tool_calls"))
        ]

    def repeated(self, lines: Lines, again: bool) -> bool:
        """Whether a request was answered before: it repeats the latest, with the agent's words in it or as a client sends it again."""
        whole = any(role == "assistant" for role, _ in lines)
        return self.last_answer is not None and lines == self.last_request and (again or whole)

    def new(self, lines: Lines) -> list[str]:
        """The user's new lines. Failed for what does not go on from here."""
        known = self.spoken
        new = lines[len(known) :] if lines[: len(known)] == known else lines
        if any(role == "assistant" for role, _ in new):
            raise Failed(409, "messages repeats what was not said: send all that user and agent said, or the new line alone", self.id)
        if not new:
            raise Failed(400, "messages ends in no new line of the user's", self.id)
        return [words for _, words in new]


class Conversations:
    """begin: makes a new conversation of an id."""

    def __init__(self, begin: Callable[[str], Held]) -> None:
        self._begin = begin
        self._held: OrderedDict[str, Held] = OrderedDict()
        self._change = threading.Lock()

    def find(self, lines: Lines, name: str, again: bool, asker: Asker) -> Held:
        """The conversation of a request, which waits there until it is `answered`. again: the client says that it sends it anew.
        Failed for one that is not known."""
        with self._change:
            held = self._named(name) if name else self._left(lines) if again else None
            held = held or self._repeating(lines)
            held.newest_request, held.asker = lines, asker
            held.waiting += 1
            self._held[held.id] = held
            self._held.move_to_end(held.id)
            while len(self._held) > MOST:
                self._held.popitem(last=False)
            return held

    def answered(self, held: Held) -> None:
        """A request has its answer, or an error."""
        with self._change:
            held.waiting -= 1

    def _left(self, lines: Lines) -> Held | None:
        """Where this was asked before: by somebody who has left without an answer, each of whom is taken up once; or, where the agent's
        words are in it, by anybody. A first line alone is said by many."""
        mine = [held for held in reversed(self._held.values()) if held.newest_request == lines]
        whole = any(role == "assistant" for role, _ in lines)
        return next((held for held in mine if held.asker.left), None) or next(iter(mine if whole else ()), None)

    def _named(self, name: str) -> Held:
        if name not in self._held:
            raise Failed(
                404,
                f"conversation {name!r} is not known here: the server was started anew, or {MOST} others came since. {BEGIN}",
                name,
            )
        return self._held[name]

    def _repeating(self, lines: Lines) -> Held:
        if all(role == "user" for role, _ in lines):
            return self._begin(f"conv-{secrets.token_hex(12)}")
        found = [held for held in self._held.values() if not held.waiting and _goes_on(held.spoken, lines)]
        found = found or [held for held in self._held.values() if held.newest_request == lines]
        if not found:
            raise Failed(
                404,
                f"no conversation here has said this so far: the server was started anew, or messages was changed. {BEGIN}",
            )
        if any(_hidden(held) != _hidden(found[-1]) for held in found):
            raise Failed(
                409,
                f"{len(found)} conversations have said this so far, and their tools answered differently. Say which it is: metadata: "
                '{"conversation": ID}, the id that came with each answer.',
            )
        return found[-1]


def _goes_on(known: Lines, lines: Lines) -> bool:
    """Whether `lines` is all that is known and lines of the user's."""
    return len(lines) > len(known) and lines[: len(known)] == known and all(role == "user" for role, _ in lines[len(known) :])


def _hidden(held: Held) -> Sequence[Any]:
    return [(action.name, action.arguments, result) for action, result in held.talk.played.calls]
