"""What is served, as a player (`tasks.contract.agent.Agent`): each turn is a chat request of the conversation so far, so that it reads
what `evaluate` let it read, and is kept like any other answer, before its calls are made."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tasks.chat.local.format import with_text_arguments
from tasks.contract.agent import Turn, World
from tasks.contract.client import Message
from tasks.serving.endpoint.prompting import with_read_arguments

if TYPE_CHECKING:
    from tasks.players.local.generation import Generated
    from tasks.serving.endpoint.chat import Chat, Owed
    from tasks.serving.endpoint.chat_request import ChatRequest
    from tasks.serving.endpoint.served import Served

About = Callable[[], Mapping[str, Any]]
"""Gives what is kept with an answer."""


class ServedPlayer:
    """The model of one request. about: gives what is kept with each answer. last: id of the latest; usage: tokens so far, as OpenAI's
    API counts them."""

    capacity = 8

    def __init__(self, served: Served, chat: Chat, request: ChatRequest, about: About) -> None:
        self.name = request.model
        self.last, self.usage = "", {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        self._served, self._chat, self._request, self._about = served, chat, request, about
        self._running: dict[Future[Generated], tuple[str, Owed]] = {}
        self._full: list[str] = []
        self._latest: Owed | None = None

    def send(self, conversation: str, messages: Sequence[Message], world: World, seed: int) -> None:
        """Ask for a turn; the world's own system message is put in front."""
        from tasks.serving.endpoint.chat_request import ChatMessage

        if self.name not in self._served.names:  # else its base would answer in its place
            raise LookupError(f"{self.name} was taken away meanwhile")
        asked = self._request.model_copy(
            update={
                "messages": [ChatMessage.model_validate(with_text_arguments(message)) for message in messages],
                "custom_inputs": {"world": world.name},
                "seed": seed if self._request.seed is None else self._request.seed,
            }
        )
        owed = replace(self._chat.owed(asked, self._served.adapters.get(self._request.model, "")), about=self._about())
        self._latest = owed
        if len(owed.ids) >= self._served.thread.most:
            self._full.append(conversation)
        else:
            self._running[self._served.thread.ask(owed.ids, owed.sampling)] = conversation, owed

    def resume(self, conversation: str, messages: Sequence[Message], turns: Sequence[Turn]) -> None:
        """Nothing: each request carries the whole conversation."""

    def poll(self) -> list[tuple[str, Turn]]:
        """The turns that are there, one at least. Raises what the engine raises."""
        if self._full:
            full, self._full = self._full, []
            return [(one, Turn({"role": "assistant", "content": ""}, error="max_tokens")) for one in full]
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        return [self._turn(*self._running.pop(made), made.result()) for made in list(self._running) if made in done]

    def _turn(self, conversation: str, owed: Owed, made: Generated) -> tuple[str, Turn]:
        answer = self._chat.answer(owed, made)
        self.last = owed.id
        for name, count in (("prompt_tokens", len(owed.ids)), ("completion_tokens", answer.produced)):
            self.usage[name] += count
            self.usage["total_tokens"] += count
        message = with_read_arguments(answer.message)
        error = answer.error or ("max_tokens" if answer.finish == "length" else "")
        return conversation, Turn({**message, "content": message.get("content") or ""}, error=error)

    def ended(self, messages: Sequence[Message], finish: str) -> str:
        """Keep a conversation that ended otherwise than by a reply, with what has come since the model was asked; its id."""
        assert self._latest is not None  # whatever ends a conversation comes after a turn
        self.last = f"chatcmpl-{secrets.token_hex(12)}"
        owed = replace(self._latest, id=self.last, about=self._about())
        self._chat.keep(owed, [with_text_arguments(one) for one in messages[len(owed.request.messages) :]], finish, ())
        return self.last

    def close(self, conversation: str) -> None:
        """Nothing is held."""


def player_of(engines: Sequence[Served], request: ChatRequest, about: About) -> ServedPlayer:
    """Who is named by a request, one who can chat."""
    from tasks.serving.endpoint.served import find

    served = find(engines, request.model)
    chat = served.chat_of(request.model) if served else None
    if served is None or chat is None:
        raise LookupError(f"{request.model} was taken away meanwhile")
    return ServedPlayer(served, chat, request, about)
