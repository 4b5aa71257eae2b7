"""`cairn serve --shadow`: a second agent answers beside the first, for the log alone.

Each chat that the first has answered is put to the second with the same messages, so that at every turn it sees the first one's history
and never its own. It waits while anybody is being answered and gives way, at the next token, to who comes then; what it had begun is
begun again (the seed is the same, and so are the tokens). What finds its queue full is dropped, counted and told.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tasks.players.local.generation import Generated
from tasks.serving.endpoint.chat import Answer, Chat, Owed
from tasks.serving.endpoint.chat_api import watch_of
from tasks.serving.endpoint.served import Engine

WAITING = 64
"""Chats that may wait for the second agent; ours."""


@dataclass
class Figures:
    """answers: of the second agent; same_tokens: of these, as the first one's. with_call: turns in which at least one of the two called
    a tool; same_first_call: of these, both began with the same tool and arguments. dropped: found the queue full. failed: reason ->
    how many the second could not answer."""

    answers: int = 0
    same_tokens: int = 0
    with_call: int = 0
    same_first_call: int = 0
    dropped: int = 0
    failed: Counter[str] = field(default_factory=Counter)

    def add(self, first: tuple[Answer, Sequence[int]], second: tuple[Answer, Sequence[int]]) -> None:
        """Count a turn that both answered: (answer, ids) of each."""
        self.answers += 1
        self.same_tokens += list(first[1]) == list(second[1])
        one, other = _first_call(first[0]), _first_call(second[0])
        self.with_call += one is not None or other is not None
        self.same_first_call += one is not None and one == other


@dataclass(frozen=True)
class _Turn:
    owed: Owed
    ids: Sequence[int]
    answer: Answer


class Shadow:
    """`tasks.serving.endpoint.chat_api.Beside` for the chats of `first`, a name that requests give. Of the second agent: its engine,
    the name of its adapter there ("" for none), its own name and how it chats."""

    def __init__(self, first: str, thread: Engine, adapter: str, second: str, chat: Chat, waiting: int = WAITING) -> None:
        self.first, self.second = first, second
        self._engine, self._adapter, self._chat = thread, adapter, chat
        self._counts = Figures()
        self._queue: queue.Queue[_Turn | None] = queue.Queue(waiting)
        self._under_way, self._lock = 0, threading.Lock()
        self._nobody_waits, self._over = threading.Event(), False
        self._nobody_waits.set()
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
        self._thread.start()

    def begins(self) -> None:
        """Somebody is being answered: the second agent waits."""
        with self._lock:
            self._under_way += 1
            self._nobody_waits.clear()

    def ends(self) -> None:
        """Who came with `begins` has all tokens, or gets none."""
        with self._lock:
            self._under_way -= 1
            if not self._under_way:
                self._nobody_waits.set()

    def answered(self, owed: Owed, made: Generated, answer: Answer) -> None:
        """Put a chat that was answered to the second agent too, if it was the first one's and there is room."""
        if owed.request.model != self.first:
            return
        try:
            self._queue.put_nowait(_Turn(owed, made.ids, answer))
        except queue.Full:
            self._counts.dropped += 1
            if self._counts.dropped == 1:
                self._tell(f"{self._queue.maxsize} chats wait for it; further ones are dropped until there is room, and counted")

    def figures(self) -> Mapping[str, Any]:
        """The counts as they are."""
        counts = self._counts
        return {
            "model": self.second,
            "answers": counts.answers,
            "same_tokens": counts.same_tokens,
            "with_call": counts.with_call,
            "same_first_call": counts.same_first_call,
            "waiting": self._queue.qsize(),
            "dropped": counts.dropped,
            "failed": dict(counts.failed),
        }

    def summary(self) -> str:
        """The counts, in a line."""
        counts, waiting = self._counts, self._queue.qsize()
        parts = [
            f"{self.second} answered {counts.answers} turns beside {self.first}",
            f"with the same tokens in {counts.same_tokens}",
            f"where one of the two called a tool, both began with the same call in {counts.same_first_call} of {counts.with_call}",
            f"{counts.dropped} dropped, as the queue was full" if counts.dropped else "",
            f"{waiting} not answered yet" if waiting else "",
            *(f"{count} failed: {why}" for why, count in counts.failed.items()),
        ]
        return "; ".join(filter(None, parts))

    def end(self) -> None:
        """Stop; what waits is not answered."""
        self._over = True
        self._nobody_waits.set()
        while True:
            try:
                self._queue.put_nowait(None)
                break
            except queue.Full:
                self._queue.get_nowait()
        self._thread.join()

    def _work(self) -> None:
        while (turn := self._queue.get()) is not None and not self._over:
            try:
                self._answer(turn)
            except Exception as error:  # the second agent's matter: whoever asked has the first one's answer
                why = f"{type(error).__name__}: {error}"
                self._counts.failed[why] += 1
                if self._counts.failed[why] == 1:
                    self._tell(f"it could not answer ({why}); told once, counted from here on")

    def _answer(self, turn: _Turn) -> None:
        request = turn.owed.request.model_copy(update={"model": self.second, "seed": turn.owed.sampling.seed})
        owed = self._chat.owed(request, self._adapter)
        owed = replace(owed, shadow_of=turn.owed.id)
        if len(owed.ids) >= self._engine.most:
            raise ValueError(f"a conversation fills the context of {self._engine.most} tokens")
        if (made := self._made(owed)) is not None:
            self._counts.add((turn.answer, turn.ids), (self._chat.answer(owed, made), made.ids))

    def _made(self, owed: Owed) -> Generated | None:
        """The turn, begun as often as somebody comes in between; None at the end."""
        stops = watch_of(self._chat, owed)
        while not self._over:
            self._nobody_waits.wait()
            gave_way = False

            def watch(ids: Sequence[int]) -> bool:
                nonlocal gave_way
                gave_way = not self._nobody_waits.is_set() or self._over
                return gave_way or (stops is not None and stops(ids))

            made = self._engine.ask(owed.ids, owed.sampling, watch).result()
            if not gave_way:
                return made
        return None

    def _tell(self, what: str) -> None:
        print(f"cairn: shadow {self.second}: {what}", file=sys.stderr, flush=True)


def _first_call(answer: Answer) -> tuple[str, Any] | None:
    calls = answer.message.get("tool_calls") or ()
    if not calls:
        return None
    return calls[0]["function"]["name"], json.loads(calls[0]["function"]["arguments"])
