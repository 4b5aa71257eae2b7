"""A checkpoint in this process as a role's client, batched. It reads what a server with the same chat template would
read."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.chat.answers import THINK
from tasks.chat.local.format import ChatFormat
from tasks.chat.local.kept import chat_of
from tasks.chat.local.parsing import parse_turn
from tasks.checkpoints.adapters import ADAPTER, find_base, is_adapter, weights_of
from tasks.checkpoints.folders import load_tokenizer
from tasks.contract.client import Message, Request
from tasks.players.local import own
from tasks.players.local.generation import Engine, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ROWS = 64
"""Requests generated together."""
NO_ROOM: Message = {"role": "assistant", "content": "", "finish_reason": "length"}
"""The answer to a prompt that fills the checkpoint's whole context."""


class LocalClient:
    """Answers with the checkpoint in `folder`, loaded at the first question.

    A wanted schema is put into words in the system message; whether the answer fits it is the caller's to check, as for any
    model. An answer that is not well-formed comes back as plain content with finish_reason "error", one that was cut at its most
    tokens or at the checkpoint's context with "length". What the checkpoint thought before it spoke is not part of an answer.

    identity: names the checkpoint's bytes in rows and cache keys. max_tokens, temperature: of an answer, instead of what a request
    wants. thinking: tokens on top of the most. artifacts: identity -> folder of those at hand; where `folder` holds an adapter, it is
    played on its base, which is one of them.
    """

    name = "local"

    def __init__(
        self,
        folder: Path,
        identity: str,
        device: str = "cpu",
        dtype: str = "float32",
        max_tokens: int | None = None,
        thinking: int = 0,
        temperature: float | None = None,
        artifacts: Mapping[str, Path] | None = None,
    ) -> None:
        self.revision, self._most, self._thinking, self._temperature = identity, max_tokens, thinking, temperature
        self._folder, self._device, self._dtype, self._artifacts = folder, device, dtype, artifacts or {}
        self._adapter = ADAPTER if is_adapter(folder) else ""
        self._loaded: tuple[Engine, PreTrainedTokenizerBase] | None = None
        self._lent = False

    def play_on(self, model: PreTrainedModel, weights: str) -> None:
        """Answer with a model in memory from now on, its adapter off, if what is under the adapter is this checkpoint: then one base is
        in memory and not two. weights: of that base, see `adapters.weights_of`; "" takes a model that was lent before back."""
        ours = bool(weights) and not self._adapter and (model.device.type, str(model.dtype)) == (self._device, f"torch.{self._dtype}")
        ours = ours and not any(".modules_to_save." in name for name, _ in model.named_parameters())  # these cannot be switched off
        if ours and weights_of(self._folder) == weights:
            self._loaded, self._lent = self._open(model), True
        elif self._lent:
            self._loaded, self._lent = None, False

    def _open(self, checkpoint: Path | PreTrainedModel) -> tuple[Engine, PreTrainedTokenizerBase]:
        own_adapter = {ADAPTER: self._folder} if self._adapter else None
        opened = own.opened(checkpoint, own_adapter, rows=ROWS, most=sys.maxsize, device=self._device, dtype=self._dtype)
        return opened, load_tokenizer(self._folder)

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        """One assistant message per request, in order."""
        if not requests:
            return []
        if self._loaded is None:
            self._loaded = self._open(find_base(self._folder, self._artifacts) if self._adapter else self._folder)
        engine, tokenizer = self._loaded
        chat = chat_of(tokenizer)
        stop = tuple(chat.end_ids(tokenizer))
        texts = [prompt_text(chat, request) for request in requests]
        answers: list[Message] = [dict(NO_ROOM) for _ in requests]
        todo, running = list(reversed(range(len(requests)))), 0
        while todo or running:
            while todo and running < engine.rows:
                request = requests[index := todo.pop()]
                ids = tokenizer(texts[index], add_special_tokens=False)["input_ids"]
                temperature = request.temperature if self._temperature is None else self._temperature
                most = (self._most or request.max_tokens) + self._thinking
                engine.submit(str(index), ids, Sampling(request.seed, temperature, most, stop, self._adapter))
                running += 1
            for made in engine.poll():
                index = int(made.conversation)
                if made.finish != "full":
                    answers[index] = _answer(chat, tokenizer, made.ids, requests[index], texts[index])
                engine.close(made.conversation)
                running -= 1
        return answers


def _answer(chat: ChatFormat, tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], request: Request, prompt: str) -> Message:
    """One generated turn as an answer, with how it ended."""
    before = sum(len(message.get("tool_calls") or ()) for message in request.messages)
    message, error = parse_turn(chat, tokenizer, ids, before, request.tools, prompt.rstrip().endswith(THINK))
    finish = {"max_tokens": "length", "parse_error": "error"}.get(error) or ("tool_calls" if message.get("tool_calls") else "stop")
    return {**message, "finish_reason": finish}


def prompt_text(chat: ChatFormat, request: Request) -> str:
    """What the checkpoint reads of a request, in its own chat format."""
    messages = list(request.messages)
    system = str(messages.pop(0)["content"]) if messages and messages[0]["role"] == "system" else None
    if request.schema is not None:
        wish = "Answer with one JSON value that fits this schema: " + json.dumps(request.schema, sort_keys=True)
        system = wish if system is None else f"{system}\n\n{wish}"
    return chat.prompt_text(system, messages, request.tools)
