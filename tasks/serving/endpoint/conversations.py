"""Conversations that were answered, with the ids read and produced: the next request renders what is new alone."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tasks.chat.local.format import BY_TURN
from tasks.contract.client import Message

if TYPE_CHECKING:
    from tasks.serving.endpoint.prompting import Prompt, Prompting

MOST = 1024
"""Conversations that are remembered, the latest; of 8,192 tokens each they take 32 MiB."""


class Conversations:
    """Of each model that is served, those that were answered; the one that was not asked for the longest is forgotten first."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._ids: OrderedDict[str, array[int]] = OrderedDict()

    def ids(self, model: str, prompting: Prompting, prompt: Prompt) -> list[int]:
        """What the model reads before its turn: the ids of a conversation that it answered and what came since; else the request,
        rendered whole. Where the chat format writes the past anew each turn, always the latter."""
        replies = [index for index, message in enumerate(prompt.messages) if message["role"] == "assistant"]
        key = _key(model, prompt, prompt.messages[: replies[-1] + 1]) if replies else ""
        if key not in self._ids or prompting.chat.form == BY_TURN:
            return prompting.ids(prompt)
        self._ids.move_to_end(key)
        suffix = prompting.chat.suffix_ids(prompting.tokenizer, prompt.system, prompt.messages, prompt.tools)
        return [*self._ids[key], *suffix]

    def remember(self, model: str, prompt: Prompt, reply: Message, ids: Sequence[int]) -> None:
        """Keep a conversation that was answered. reply: arguments of calls as objects. ids: read and produced, the turn's end last."""
        key = _key(model, prompt, [*prompt.messages, reply])
        self._ids[key] = array("l", ids)
        self._ids.move_to_end(key)
        while len(self._ids) > self._most:
            self._ids.popitem(last=False)


def _key(model: str, prompt: Prompt, messages: Sequence[Message]) -> str:
    said: list[Any] = [model, prompt.system, prompt.tools, [{**one, "content": one.get("content") or ""} for one in messages]]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
