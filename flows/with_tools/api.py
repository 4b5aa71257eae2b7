"""/v1/chat/completions where the server calls the tools: OpenAI's, of messages that hold no calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from flows.with_tools.answering import WithTools
from flows.with_tools.held import Asker, Failed
from tasks.contract.params import BadInput
from tasks.serving.endpoint import errors
from tasks.serving.endpoint.chat_api import END, sent_event
from tasks.serving.endpoint.chat_request import of_body
from tasks.serving.endpoint.served import find, unknown

if TYPE_CHECKING:
    from tasks.serving.endpoint.served import Served

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]
AT_ONCE = 64
"""Conversations that are answered at a time; others wait."""
ALIVE = 5.0
"""Seconds after which a stream says that it is there while tools are called."""
NOT_AGAIN = {"x-should-retry": "false"}
"""OpenAI's clients send a failed request again by themselves, unless they are told: what has been written would be written twice."""


def add(app: FastAPI, engines: Sequence[Served], loop: WithTools) -> None:
    """Give an app the endpoint; it goes before one of the same path that is added later."""
    threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="conversation")
    app.router.lifespan_context = _to_the_end(app.router.lifespan_context, threads)

    @app.post("/v1/chat/completions")
    async def chat_completions(body: Request) -> Any:
        again = body.headers.get("x-stainless-retry-count", "0") not in ("", "0")
        try:
            request = of_body(await body.body())
            if (served := find(engines, request.model)) is None:
                return errors.refused(404, unknown(engines, request.model), errors.UNKNOWN, "model")
            if served.chat_of(request.model) is None:
                return errors.refused(400, f"{request.model} cannot chat: {served.no_chat}", param="model")
            held = loop.find(request, again, asker := Asker())
        except Exception as error:
            return _refused(error)
        # To its end once it is begun, whoever listens: a conversation is not left between a write and its answer.
        answer = asyncio.get_running_loop().run_in_executor(threads, loop.answer, held, request, again, asker)
        watch = asyncio.ensure_future(_watch(body, asker))
        answer.add_done_callback(lambda made: (watch.cancel(), made.cancelled() or made.exception()))  # which nobody may hear
        if request.stream:
            usage = bool((request.stream_options or {}).get("include_usage"))
            return StreamingResponse(_events(answer, usage), media_type="text/event-stream")
        try:
            return await asyncio.shield(answer)
        except Exception as error:
            return _refused(error)


def _to_the_end(lifespan: Lifespan, threads: ThreadPoolExecutor) -> Lifespan:
    """An app that ends when the conversations have ended that are begun, also those whose callers have left."""

    @asynccontextmanager
    async def whole(app: Any) -> AsyncIterator[Any]:
        async with lifespan(app) as state:
            yield state
        await asyncio.to_thread(threads.shutdown, wait=True, cancel_futures=True)

    return whole


async def _watch(body: Request, asker: Asker) -> None:
    """See whether whoever asked leaves while there is no answer."""
    while (await body.receive())["type"] != "http.disconnect":
        pass
    asker.left = True


def _refused(error: Exception) -> JSONResponse:
    status, body = _error(error)
    return JSONResponse(body, status_code=status, headers=NOT_AGAIN)


def _error(error: Exception) -> tuple[int, dict[str, Any]]:
    """(status, body) as OpenAI's API has them."""
    status = error.status if isinstance(error, Failed) else 400 if isinstance(error, BadInput | ValueError) else 500
    message = str(error) if status != 500 or isinstance(error, Failed) else f"{type(error).__name__}: {error}"
    about = errors.error(status, message)
    conversation = error.conversation if isinstance(error, Failed) else ""
    return status, {"error": {**about, **({"conversation": conversation} if conversation else {})}}


async def _events(answer: asyncio.Future[dict[str, Any]], usage: bool) -> AsyncIterator[str]:
    """Server-sent events: signs of life while tools are called, then the reply. It is sent whole, since nobody knows before its end
    that a turn is a reply."""
    while not (await asyncio.wait({answer}, timeout=ALIVE))[0]:
        yield ": tools are being called\n\n"
    if error := answer.exception():
        yield sent_event(_error(error)[1] if isinstance(error, Exception) else {"error": {"message": str(error)}})
        return
    made = answer.result()
    (choice,) = made["choices"]
    head = {**{name: value for name, value in made.items() if name not in ("choices", "usage")}, "object": "chat.completion.chunk"}
    for delta, finish in ((choice["message"], None), ({}, choice["finish_reason"])):
        yield sent_event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]})
    if usage:
        yield sent_event({**head, "choices": [], "usage": made["usage"]})
    yield END
