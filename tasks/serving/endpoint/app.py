"""The HTTP API of `cairn serve`: OpenAI's chat (`chat_api.py`), and what vLLM answers on the same paths for token ids.

/v1/completions takes a prompt of token ids and gives token ids with their log-probabilities, always those of the distribution that was
sampled from; /v1/load_lora_adapter and /v1/unload_lora_adapter add and remove adapters while others are served.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, field_validator

from tasks.checkpoints.adapters import is_adapter
from tasks.contract.params import BadInput
from tasks.players.local.generation import Generated, Sampling
from tasks.serving.endpoint import chat_api
from tasks.serving.endpoint.chat_api import Beside, under_way
from tasks.serving.endpoint.errors import TOO_LONG, UNKNOWN, first_fault, of_engine, refused
from tasks.serving.endpoint.plain_fields import SAMPLING, Allowed, refusal
from tasks.serving.endpoint.served import Served, find, unknown


class Completion(BaseModel):
    """A request. What it may say beside these must be what it is anyway: see PLAIN."""

    model_config = ConfigDict(extra="allow")

    model: str
    prompt: list[int] = Field(min_length=1)
    max_tokens: int = Field(16, ge=1)
    temperature: float = Field(1.0, ge=0, le=2)
    seed: int = Field(0, ge=0, lt=2**63)
    stop_token_ids: list[int] = []

    @field_validator("prompt", mode="before")
    @classmethod
    def _no_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError("token ids, a list of integers: this server encodes no text here; /v1/chat/completions takes messages")
        return value


class Adapter(BaseModel):
    """lora_path: a folder that this process sees."""

    lora_name: str = Field(min_length=1)
    lora_path: str = ""


PLAIN: Allowed = {
    "n": (1,),
    "top_p": (1, None),
    **SAMPLING,
    "logprobs": (0, 1, None),
    "stream": (False, None),
    "echo": (False, None),
    "stop": ([], None),
    "return_token_ids": (True, False, None),
    "add_special_tokens": (True, False, None),
    "ignore_eos": (True,),
}
"""Fields of vLLM's requests, and the values that they may have here."""


def make(*engines: Served, beside: Beside | None = None, first: Callable[[FastAPI], None] | None = None) -> FastAPI:
    """The API of what is served: one engine, or several with different names. beside: who is given each chat that was answered. first:
    adds endpoints that go before those here of the same path."""
    app = FastAPI(title="cairn serve", exception_handlers={RequestValidationError: _malformed})
    if first is not None:
        first(app)
    chat_api.add(app, engines, beside)
    _add_adapters(app, engines)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", **({"shadow": beside.figures()} if beside else {})}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        names = [(name, None if name == served.name else served.name) for served in engines for name in served.names]
        return {
            "object": "list",
            "data": [{"id": name, "object": "model", "owned_by": "cairn", "parent": base} for name, base in names],
        }

    @app.post("/v1/completions")
    async def completions(wish: Completion) -> Any:
        if wrong := refusal(wish.model_extra, PLAIN):
            return refused(400, wrong)
        if (served := find(engines, wish.model)) is None:
            return refused(404, unknown(engines, wish.model), UNKNOWN, "model")
        if strange := next((one for one in wish.prompt if not 0 <= one < served.thread.vocabulary), None):
            return refused(400, f"the prompt holds token {strange}, and the model has {served.thread.vocabulary}", param="prompt")
        adapter = served.adapters.get(wish.model, "")
        sampling = Sampling(wish.seed, wish.temperature, wish.max_tokens, tuple(wish.stop_token_ids), adapter)
        try:
            with under_way(beside):
                made = await asyncio.wrap_future(served.thread.ask(wish.prompt, sampling))
        except Exception as error:  # of the engine, in its thread
            return of_engine(error)
        if made.finish == "full":
            return refused(400, f"the prompt's {len(wish.prompt)} tokens fill the context", TOO_LONG, "prompt")
        return _answer(served, wish, made)

    return app


def _add_adapters(app: FastAPI, engines: Sequence[Served]) -> None:
    """Adapters come and go while others are served: on the base that is served first."""
    served = engines[0]

    @app.post("/v1/load_lora_adapter")
    async def load(wish: Adapter) -> Any:
        if find(engines, wish.lora_name):
            return refused(400, f"The lora adapter '{wish.lora_name}' has already been loaded.")
        folder = Path(wish.lora_path)
        if not is_adapter(folder):
            return refused(404, f"no adapter in {folder} (adapter_config.json is missing)")
        try:
            await asyncio.to_thread(served.load, wish.lora_name, folder)
        except (BadInput, OSError) as error:
            return refused(400, str(error))
        return {"status": f"adapter {wish.lora_name} loaded"}

    @app.post("/v1/unload_lora_adapter")
    async def unload(wish: Adapter) -> Any:
        if wish.lora_name not in served.adapters:
            return refused(404, f"The lora adapter '{wish.lora_name}' cannot be found.")
        try:
            await asyncio.to_thread(served.unload, wish.lora_name)
        except RuntimeError as error:
            return refused(409, str(error))
        return {"status": f"adapter {wish.lora_name} unloaded"}


async def _malformed(_: Any, error: Any) -> Any:
    """A body that is no request, as OpenAI's API answers it."""
    return refused(400, *first_fault(error))


def _answer(served: Served, wish: Completion, made: Generated) -> dict[str, Any]:
    ids = list(made.ids)
    choice = {
        "index": 0,
        "text": served.tokenizer.decode(ids, skip_special_tokens=True) if served.tokenizer else "",
        "token_ids": ids,
        "prompt_token_ids": wish.prompt,
        "logprobs": {"token_logprobs": list(made.logprobs), "tokens": [f"token_id:{one}" for one in ids]},
        "finish_reason": made.finish,
    }
    usage = {"prompt_tokens": len(wish.prompt), "completion_tokens": len(ids), "total_tokens": len(wish.prompt) + len(ids)}
    return {"id": f"cmpl-{time.time_ns():x}", "object": "text_completion", "model": wish.model, "choices": [choice], "usage": usage}
