"""A way of acting of the tests: ask twice, act on the longer answer. Both tries then go on from the one that was kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from tasks.contract import params as base
from tasks.contract.agent import Agent, Turn
from tasks.contract.client import Message
from tasks.contract.context import seed_of


class Params(base.Params):
    """How often it asks."""

    tries: int = Field(2, ge=1, description="answers for each turn, of which the longest is taken")


class Longer:
    """Tries of conversation "7" are "7:0", "7:1" ... with the player."""

    def __init__(self, player: Agent, params: Params) -> None:
        self.name, self.capacity = player.name, max(1, player.capacity // params.tries)
        self._player, self._tries = player, params.tries
        self._asked: dict[str, list[Message]] = {}
        self._kept: dict[str, list[Turn]] = {}
        self._best: dict[str, int] = {}
        self._answers: dict[str, dict[int, Turn]] = {}
        self.answers = 0

    def send(self, conversation: str, messages: Sequence[Message], world: Any, seed: int) -> None:
        kept = self._kept.setdefault(conversation, [])
        for number in range(self._tries):
            own = f"{conversation}:{number}"
            if kept and number != self._best.get(conversation):  # this try said something else: it goes on from what was kept
                self._player.close(own)
                last = max(place for place, message in enumerate(messages) if message["role"] == "assistant")
                self._player.resume(own, messages[: last + 1], kept)
            self._player.send(own, messages, world, seed_of(seed, number))
        self._answers[conversation] = {}

    def resume(self, conversation: str, messages: Sequence[Message], turns: Sequence[Turn]) -> None:
        self._kept[conversation] = list(turns)
        for number in range(self._tries):
            self._player.resume(f"{conversation}:{number}", messages, turns)

    def poll(self) -> list[tuple[str, Turn]]:
        ready: list[tuple[str, Turn]] = []
        while not ready:
            for own, turn in self._player.poll():
                conversation, _, number = own.rpartition(":")
                answers = self._answers[conversation]
                answers[int(number)] = turn
                self.answers += 1
                if len(answers) == self._tries:
                    best = max(sorted(answers), key=lambda one: (not answers[one].error, len(str(answers[one].message))))
                    self._best[conversation] = best
                    self._kept[conversation].append(answers[best])
                    ready.append((conversation, answers[best]))
        return ready

    def close(self, conversation: str) -> None:
        for number in range(self._tries):
            self._player.close(f"{conversation}:{number}")
        for known in (self._kept, self._best, self._answers):
            known.pop(conversation, None)  # type: ignore[attr-defined]


def agent(player: Agent, params: Params) -> Longer:
    return Longer(player, params)
