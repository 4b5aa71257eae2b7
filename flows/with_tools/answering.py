"""A user's line, answered: agent, tool, agent ... until the agent replies or hands over, by the loop that generate, rl and evaluate
play by (`tasks.worlds.api.play`)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from flows.with_tools.backend import BackendLost, Calls
from flows.with_tools.held import BEGIN, Asker, Conversations, Failed, Held, Lines
from flows.with_tools.played_world import PlayedWorld
from flows.with_tools.player import About, ServedPlayer
from tasks.contract.agent import Agent
from tasks.contract.client import Message, Request
from tasks.contract.problem import Problem
from tasks.contract.trajectory import Trajectory
from tasks.serving.endpoint.chat_request import ChatRequest
from tasks.worlds.api.conversation import Conversation
from tasks.worlds.api.play import Game
from tasks.worlds.api.runtime import World

MORE = 3
"""Turns that an agent gets, after its last call, to answer the user."""
HANDED_OVER = "You are handed over to a person."
"""What a caller reads in place of a reply."""
Player = Callable[[ChatRequest, About], ServedPlayer]


class Caller:
    """The human, who is not here: each of their lines is a request."""

    name = revision = "caller"

    def complete(self, requests: Sequence[Request]) -> NoReturn:
        """The loop stops at each reply."""
        raise AssertionError("the human is asked by the caller")


@dataclass
class WithTools:
    """player: gives who acts for a request, and gets what is kept with each answer. way: how it acts. most: tool calls for one line of
    the user's."""

    world: World
    calls: Calls
    player: Player
    way: Callable[[Agent], Agent]
    most: int

    def __post_init__(self) -> None:
        self._conversations = Conversations(self._begin)

    def _begin(self, name: str) -> Held:
        problem = Problem(name, self.world.name, "test", "served", (name,), "", "", {}, ())
        played = Trajectory(problem, 0)
        world: Any = PlayedWorld(self.world, self.calls, played, self.most)
        return Held(name, Conversation(name, played, [], (secrets.randbelow(2**63), name), world), world)

    def find(self, request: ChatRequest, again: bool, asker: Asker) -> Held:
        """The conversation that a request goes on with; `answer` is owed to it from now on. again: the client says that it has sent the
        request before. Raises Failed."""
        return self._conversations.find(_lines(request), (request.metadata or {}).get("conversation", ""), again, asker)

    def answer(self, held: Held, request: ChatRequest, again: bool, asker: Asker) -> dict[str, Any]:
        """The answer in OpenAI's shape, with `conversation`, `ended` and `calls` beside its fields. Raises Failed, and BadInput or
        ValueError for what the agent cannot be asked."""
        try:
            return self._answer(held, request, again, asker)
        finally:
            self._conversations.answered(held)

    def _answer(self, held: Held, request: ChatRequest, again: bool, asker: Asker) -> dict[str, Any]:
        lines = _lines(request)
        with held.lock:
            if held.repeated(lines, again) and held.last_answer is not None:
                return held.last_answer
            if asker.left:  # before it was begun; if it comes again, it is begun then
                raise Failed(499, "whoever asked has left", held.id)
            if held.ended:
                raise Failed(409, f"the conversation is over: {held.ended}. {BEGIN}", held.id)
            new = held.new(lines)
            held.last_request, held.last_answer = lines, None
            held.talk.played.messages += [{"role": "user", "content": words} for words in new]
            held.last_answer = self._play(held, request)
            return held.last_answer

    def _play(self, held: Held, request: ChatRequest) -> dict[str, Any]:
        talk, before = held.talk, len(held.talk.played.calls)
        held.world.left = self.most
        player = self.player(request, lambda: {"conversation": held.id, "calls": _calls(held)})
        game = Game(self.world, seed=0, max_steps=talk.steps + self.most + MORE)
        try:
            game.play([talk], self.way(player), Caller(), to_reply=True)
        except BackendLost as lost:
            raise self._lost(held, player, before, 502, f"what its tools are called on was lost: {lost}") from None
        except Exception as error:
            held.ended = f"{type(error).__name__}: {error}"
            if len(talk.played.calls) == before:
                raise
            raise self._lost(held, player, before, 500, held.ended) from None
        stop, last = talk.played.stop, talk.played.messages[-1]
        if stop == "max_tokens" and last["content"]:
            talk.played.stop = ""
            return _response(held, player, before, str(last["content"]), "length")
        if not stop:
            return _response(held, player, before, str(last["content"]), "stop")
        player.ended(talk.played.messages, stop)
        if stop == "hand_over":
            held.ended = f"it was handed over to a person ({talk.played.calls[-1][0].name})"
            return _response(held, player, before, HANDED_OVER, "stop", stop)
        held.ended = _why(stop, self.most)
        raise Failed(500, f"{held.ended}. {_done(held, before)} It is kept as {player.last}.", held.id)

    def _lost(self, held: Held, player: ServedPlayer, before: int, status: int, why: str) -> Failed:
        """What the caller is told when tools or model can be asked no more, after calls may have been made."""
        held.ended = why
        kept = player.ended(held.talk.played.messages, "backend_lost" if status == 502 else "model_lost")
        return Failed(status, f"{why}. {_done(held, before)} The conversation is over; it is kept as {kept}.", held.id)


def _lines(request: ChatRequest) -> Lines:
    """What a request repeats and adds. Failed for what a caller cannot say here."""
    for name in ("tools", "tool_choice", "stop", "custom_inputs"):
        if getattr(request, name):
            raise Failed(400, f"{name} cannot be given: this server calls the tools of its world itself (cairn serve --with-tools)")
    if other := next((one for one in request.messages if one.role not in ("user", "assistant") or one.tool_calls), None):
        what = "a tool call" if other.tool_calls else f"a {other.role} message"
        raise Failed(400, f"messages holds {what}: send what user and agent said to each other, or the user's new line alone")
    return [(one.role, one.content or "") for one in request.messages]


def _calls(held: Held) -> list[dict[str, Any]]:
    """What came of each call so far; of one that never reached the backend, that it was refused."""
    answers: list[Message] = [one for one in held.talk.played.messages if one["role"] == "tool"]
    found = []
    for place, answer in enumerate(answers):
        about: dict[str, Any] = {"id": answer["tool_call_id"], "tool": answer["name"], "made": False, "ok": False}
        if record := held.world.called.get(place):
            about |= {"made": record.made, "ok": record.ok, "seconds": record.seconds}
            about |= {"blocked_by": record.blocked_by} if record.blocked_by else {}
            about |= {"effect": "unknown"} if record.unknown else {}
        found.append(about)
    return found


def _done(held: Held, before: int) -> str:
    """What the calls of a turn have written, as far as it is known."""
    since = [one for place, one in sorted(held.world.called.items()) if place >= before and one.kind == "write"]
    parts = [
        f"{word}: {', '.join(names)}."
        for word, names in (
            ("Written in this turn", [one.tool for one in since if one.ok]),
            ("Whether it took effect is not known", [one.tool for one in since if one.unknown]),
        )
        if names
    ]
    return " ".join(parts) or "Nothing was written in this turn."


def _why(stop: str, most: int) -> str:
    return {
        "max_steps": f"the agent has not answered the user after {most} tool calls (--tool-calls)",
        "max_tokens": "the conversation fills the model's context (--max-tokens)",
        "parse_error": "the agent has written what is neither a reply nor a call",
    }.get(stop, stop)


def _response(held: Held, player: ServedPlayer, before: int, content: str, finish: str, ended: str = "") -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    return {
        "id": player.last,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": player.name,
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
        "usage": player.usage,
        "conversation": held.id,
        "ended": ended,
        "calls": _calls(held)[before:],
    }
