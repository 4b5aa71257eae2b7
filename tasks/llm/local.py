"""A checkpoint in this process as a role's client, batched. It reads what a server with the same chat template would
read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.llm import Message, Request
from tasks.llm.decoding import Decoder, Row
from tasks.models import END, load, parse_turn, plain

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ROWS = 64
"""Requests generated together."""


class LocalClient:
    """Answers with the checkpoint in `folder`, loaded at the first question.

    A wanted schema is put into words in the system message; whether the answer fits it is the caller's to check, as for any
    model. An answer that is not well-formed comes back as plain content.
    """

    name = "local"

    def __init__(self, folder: Path, identity: str, device: str = "cpu", dtype: str = "float32") -> None:
        self.revision = identity
        self._folder, self._device, self._dtype = folder, device, dtype
        self._loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        """One assistant message per request, in order."""
        if not requests:
            return []
        if self._loaded is None:
            self._loaded = load(self._folder, self._device, self._dtype)
        model, tokenizer = self._loaded
        prompts = [_prompt(tokenizer, request) for request in requests]
        most = max(len(ids) + request.max_tokens for ids, request in zip(prompts, requests, strict=True))
        decoder = Decoder(model, int(tokenizer.convert_tokens_to_ids(END)), min(ROWS, len(requests)), most + 1)
        answers: list[Message] = [{}] * len(requests)
        open_rows: dict[Row, int] = {}
        todo = list(range(len(requests)))[::-1]
        while todo or open_rows:
            while todo and len(open_rows) < decoder.rows:
                index = todo.pop()
                row = decoder.open()
                open_rows[row] = index
                asked = requests[index]
                decoder.ask(row, prompts[index], seed=asked.seed, temperature=asked.temperature, limit=asked.max_tokens)
            for row in decoder.run():
                answers[open_rows.pop(row)] = parse_turn(tokenizer, row.ids)[0]
                decoder.close(row)
        return answers


def client(folder: Path, identity: str, device: str = "cpu", dtype: str = "float32") -> LocalClient:
    """The client of the checkpoint in `folder`; `identity` names its bytes in rows and cache keys."""
    return LocalClient(folder, identity, device, dtype)


def _prompt(tokenizer: PreTrainedTokenizerBase, request: Request) -> list[int]:
    messages = [
        dict(message) if message["role"] == "system" else {**message, "content": plain(message.get("content") or "")}
        for message in request.messages
    ]
    if request.schema is not None:
        wish = "Answer with one JSON value that fits this schema: " + json.dumps(request.schema, sort_keys=True)
        if messages and messages[0]["role"] == "system":
            messages[0]["content"] = f"{messages[0]['content']}\n\n{wish}"
        else:
            messages.insert(0, {"role": "system", "content": wish})
    text = tokenizer.apply_chat_template(messages, tools=list(request.tools) or None, add_generation_prompt=True, tokenize=False)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
