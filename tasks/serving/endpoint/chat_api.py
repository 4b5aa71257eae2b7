"""/v1/chat/completions: OpenAI's, whole or streamed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from tasks.contract.generation import Generated
from tasks.contract.params import BadInput
from tasks.serving.endpoint.chat import Answer, Chat, Owed
from tasks.serving.endpoint.chat_request import read
from tasks.serving.endpoint.engine_thread import Watch

if TYPE_CHECKING:
    from tasks.serving.endpoint.app import Served


def refused(status: int, message: str) -> JSONResponse:
    """An error as OpenAI's API writes it."""
    return JSONResponse({"error": _error(status, message)}, status_code=status)


def _error(status: int, message: str) -> dict[str, Any]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"message": message, "type": kind, "param": None, "code": status}


def add(app: FastAPI, served: Served) -> None:
    """Give an app the endpoint."""

    @app.post("/v1/chat/completions")
    async def chat_completions(body: Request) -> Any:
        if served.chat is None:
            return refused(400, f"{served.name} is served by token ids alone: {served.no_chat}")
        try:
            request = read(await body.json())
            if request.model != served.name and request.model not in served.adapters:
                return refused(404, served.unknown(request.model))
            owed = served.chat.owed(request, served.adapters.get(request.model, ""))
        except (BadInput, ValueError) as error:  # a request that the agent or its chat format cannot hold
            return refused(400, str(error))
        if len(owed.ids) >= served.thread.most:
            return refused(400, f"the conversation's {len(owed.ids)} tokens fill the context of {served.thread.most}")
        if request.stream:
            return StreamingResponse(_events(served, served.chat, owed), media_type="text/event-stream")
        try:
            made = await asyncio.wrap_future(served.thread.ask(owed.ids, owed.sampling, _watch(served.chat, owed)))
        except LookupError as error:
            return refused(404, str(error))
        except Exception as error:  # of the engine, in its thread
            return refused(500, f"{type(error).__name__}: {error}")
        answer = served.chat.answer(owed, made)
        choice = {"index": 0, "message": answer.message, "finish_reason": answer.finish, "logprobs": None}
        return {**_head(owed, "chat.completion"), "choices": [choice], "usage": _usage(owed, answer)}


def _watch(chat: Chat, owed: Owed) -> Watch | None:
    return (lambda ids: chat.stopped(owed, ids)) if owed.request.stop else None


async def _events(served: Served, chat: Chat, owed: Owed) -> AsyncIterator[str]:
    """Server-sent events: words as they are certain, calls whole, then the end; usage where the request asks for it."""
    loop, arrived, gone = asyncio.get_running_loop(), asyncio.Queue[list[int] | None](), False

    def watch(ids: Sequence[int]) -> bool:
        loop.call_soon_threadsafe(arrived.put_nowait, list(ids))
        return gone or chat.stopped(owed, ids)

    made = served.thread.ask(owed.ids, owed.sampling, watch)
    made.add_done_callback(lambda _: loop.call_soon_threadsafe(arrived.put_nowait, None))
    sent = ""
    try:
        yield _event(owed, {"role": "assistant", "content": ""})
        while (ids := await arrived.get()) is not None:
            words = chat.words(owed, ids)
            if len(words) > len(sent) and words.startswith(sent):
                yield _event(owed, {"content": words[len(sent) :]})
                sent = words
        if error := made.exception():
            yield _data({"error": _error(500, f"{type(error).__name__}: {error}")})
            return
        for event in _rest(owed, chat, made.result(), sent):
            yield event
    finally:
        gone = True  # whoever asked has left: the turn is wanted no further


def _rest(owed: Owed, chat: Chat, made: Generated, sent: str) -> list[str]:
    answer = chat.answer(owed, made)
    content = answer.message.get("content") or ""
    events = [_event(owed, {"content": content[len(sent) :]})] if content.startswith(sent) and content != sent else []
    if calls := answer.message.get("tool_calls"):
        events.append(_event(owed, {"tool_calls": [{"index": index, **call} for index, call in enumerate(calls)]}))
    events.append(_event(owed, {}, answer.finish))
    if (owed.request.stream_options or {}).get("include_usage"):
        events.append(_data({**_head(owed, "chat.completion.chunk"), "choices": [], "usage": _usage(owed, answer)}))
    return [*events, "data: [DONE]\n\n"]


def _event(owed: Owed, delta: dict[str, Any], finish: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
    return _data({**_head(owed, "chat.completion.chunk"), "choices": [choice]})


def _data(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def _head(owed: Owed, kind: str) -> dict[str, Any]:
    return {"id": owed.id, "object": kind, "created": owed.created, "model": owed.request.model}


def _usage(owed: Owed, answer: Answer) -> dict[str, int]:
    read = len(owed.ids)
    return {"prompt_tokens": read, "completion_tokens": answer.produced, "total_tokens": read + answer.produced}
