"""/v1/chat/completions: OpenAI's, whole or streamed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from tasks.contract.params import BadInput
from tasks.players.local.generation import Generated
from tasks.serving.endpoint.chat import Answer, Chat, Owed
from tasks.serving.endpoint.chat_request import of_body
from tasks.serving.endpoint.engine_thread import Watch
from tasks.serving.endpoint.errors import TOO_LONG, UNKNOWN, error, of_engine, refused
from tasks.serving.endpoint.served import Served, find, unknown

END = "data: [DONE]\n\n"


class Beside(Protocol):
    """Who looks at chats as they are answered. Its methods return at once and raise nothing."""

    def begins(self) -> None:
        """Somebody waits for tokens: `ends` follows, however that goes."""

    def answered(self, owed: Owed, made: Generated, answer: Answer) -> None:
        """What was answered."""

    def ends(self) -> None:
        """Who came with `begins` has all tokens, or gets none."""

    def figures(self) -> Mapping[str, Any]:
        """What it counts, for GET /health."""


@contextmanager
def under_way(beside: Beside | None) -> Iterator[None]:
    """While the block runs, somebody waits for tokens."""
    if beside is None:
        yield
        return
    beside.begins()
    try:
        yield
    finally:
        beside.ends()


def add(app: FastAPI, engines: Sequence[Served], beside: Beside | None = None) -> None:
    """Give an app the endpoint."""

    @app.post("/v1/chat/completions")
    async def chat_completions(body: Request) -> Any:
        try:
            request = of_body(await body.body())
            if (served := find(engines, request.model)) is None:
                return refused(404, unknown(engines, request.model), UNKNOWN, "model")
            if (chat := served.chat_of(request.model)) is None:
                return refused(400, f"{request.model} is served by token ids alone: {served.no_chat}", param="model")
            owed = chat.owed(request, served.adapters.get(request.model, ""))
        except (BadInput, ValueError) as wrong:  # a request that the agent or its chat format cannot hold
            return refused(400, str(wrong))
        if len(owed.ids) >= served.thread.most:
            told = f"the conversation's {len(owed.ids)} tokens fill the context of {served.thread.most}"
            return refused(400, told, TOO_LONG, "messages")
        turn = _Turn(served, chat, owed, beside)
        if request.stream:
            return StreamingResponse(_events(turn), media_type="text/event-stream")
        return await _whole(turn)


@dataclass(frozen=True)
class _Turn:
    served: Served
    chat: Chat
    owed: Owed
    beside: Beside | None

    def answer(self, made: Generated) -> Answer:
        found = self.chat.answer(self.owed, made)
        if self.beside:
            self.beside.answered(self.owed, made, found)
        return found


async def _whole(turn: _Turn) -> Any:
    owed = turn.owed
    try:
        with under_way(turn.beside):
            made = await asyncio.wrap_future(turn.served.thread.ask(owed.ids, owed.sampling, watch_of(turn.chat, owed)))
    except Exception as wrong:  # of the engine, in its thread
        return of_engine(wrong)
    try:
        answer = turn.answer(made)
    except Exception as wrong:  # such as of the disk on which answers are kept
        return refused(500, f"{type(wrong).__name__}: {wrong}")
    choice = {"index": 0, "message": answer.message, "finish_reason": answer.finish, "logprobs": None}
    return {**_head(owed, "chat.completion"), "choices": [choice], "usage": _usage(owed, answer)}


def watch_of(chat: Chat, owed: Owed) -> Watch | None:
    """What ends a turn at the request's own stop texts; None where it has none."""
    return (lambda ids: chat.stopped(owed, ids)) if owed.request.stop else None


async def _events(turn: _Turn) -> AsyncIterator[str]:
    """Server-sent events: words as they are certain, calls whole, then the end; usage where the request asks for it. Tokens that come
    faster than they are sent go out together."""
    loop, arrived, so_far, gone = asyncio.get_running_loop(), asyncio.Event(), list[int](), False
    chat, owed = turn.chat, turn.owed

    def watch(ids: Sequence[int]) -> bool:
        nonlocal so_far
        so_far = list(ids)
        loop.call_soon_threadsafe(arrived.set)
        return gone or chat.stopped(owed, ids)

    sent = ""
    try:
        with under_way(turn.beside):
            made = turn.served.thread.ask(owed.ids, owed.sampling, watch)
            made.add_done_callback(lambda _: loop.call_soon_threadsafe(arrived.set))
            yield _event(owed, {"role": "assistant", "content": ""})
            while not made.done():
                await arrived.wait()
                arrived.clear()
                words = chat.words(owed, so_far)
                if len(words) > len(sent) and words.startswith(sent):
                    yield _event(owed, {"content": words[len(sent) :]})
                    sent = words
        try:
            rest = _rest(owed, turn.answer(made.result()), sent)
        except Exception as wrong:  # see `_whole`
            rest = [sent_event({"error": error(500, f"{type(wrong).__name__}: {wrong}")})]
        for event in rest:
            yield event
    finally:
        gone = True  # whoever asked has left: the turn is wanted no further


def _rest(owed: Owed, answer: Answer, sent: str) -> list[str]:
    content = answer.message.get("content") or ""
    events = [_event(owed, {"content": content[len(sent) :]})] if content.startswith(sent) and content != sent else []
    if calls := answer.message.get("tool_calls"):
        events.append(_event(owed, {"tool_calls": [{"index": index, **call} for index, call in enumerate(calls)]}))
    events.append(_event(owed, {}, answer.finish))
    if (owed.request.stream_options or {}).get("include_usage"):
        events.append(sent_event({**_head(owed, "chat.completion.chunk"), "choices": [], "usage": _usage(owed, answer)}))
    return [*events, END]


def _event(owed: Owed, delta: dict[str, Any], finish: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
    return sent_event({**_head(owed, "chat.completion.chunk"), "choices": [choice]})


def sent_event(value: Mapping[str, Any]) -> str:
    """A server-sent event; END is the last one of a stream."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def _head(owed: Owed, kind: str) -> dict[str, Any]:
    return {"id": owed.id, "object": kind, "created": owed.created, "model": owed.request.model}


def _usage(owed: Owed, answer: Answer) -> dict[str, int]:
    read = len(owed.ids)
    return {"prompt_tokens": read, "completion_tokens": answer.produced, "total_tokens": read + answer.produced}
