"""The mask proof (law 7): the trained tokens of a row are the assistant's own, and its prompt is the serving prompt."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.chat.local.calls import Tools
from tasks.chat.local.format import BY_TURN, ChatFormat
from tasks.chat.local.parsing import parse_turn
from tasks.chat.local.tokens import Rendered, decode, encode
from tasks.contract.client import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Example:
    """The training rows of one conversation (`ChatFormat.rows`): its name (for errors), the system prompt, the messages without it,
    their rows, and the tools that the prompt carries."""

    name: str
    system: str | None
    messages: Sequence[Message]
    rows: Sequence[Rendered]
    tools: Tools = ()


class MaskError(ValueError):
    """The trained tokens of a row are not the assistant's own, or its prompt is not the serving prompt."""


def _runs(mask: Sequence[int]) -> list[tuple[int, int]]:
    """The trained spans [start, end) of a mask."""
    edges = [index for index in range(1, len(mask)) if mask[index] != mask[index - 1]]
    bounds = [0, *edges, len(mask)] if mask else []
    return [(start, end) for start, end in itertools.pairwise(bounds) if mask[start]]


def _meaning(message: Message) -> tuple[str, list[tuple[str, Any]]]:
    calls = [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or ()]
    return (message.get("content") or "").strip(), calls


def prove_masks(chat: ChatFormat, tokenizer: PreTrainedTokenizerBase, examples: Iterable[Example]) -> int:
    """Law 7, for every row: the trained tokens decode to exactly the assistant's messages and calls, they end in what ends a turn, what
    stands before each of them is encoded as a server would, and all that stands before the last one reads as the tokenizer's own
    `apply_chat_template` renders the prompt (an independent witness).

    Returns how many assistant turns were proven. Raises MaskError naming row and message.
    """
    ends, proven = set(chat.end_ids(tokenizer)), 0
    options = {key: value for key, value in chat.variables.items() if not isinstance(value, str)}
    for example in examples:
        head: list[Message] = [] if example.system is None else [{"role": "system", "content": example.system}]
        ready = head + chat.readable(example.messages)
        own = [index for index, message in enumerate(ready) if message["role"] == "assistant"]
        spans = [(row, start, end) for row in example.rows for start, end in _runs(row.mask)]
        if len(spans) != len(own) or any(len(row.ids) != len(row.mask) for row in example.rows):
            raise MaskError(f"row {example.name}: {len(spans)} trained spans for {len(own)} assistant turns")
        for index, (row, start, end) in zip(own, spans, strict=True):
            _prove_turn(chat, tokenizer, example, ready[index], index - len(head), row.ids[start:end], ends)
        for row, last in zip(example.rows, own if chat.form == BY_TURN else own[-1:], strict=True):
            messages, tools = chat.for_template(ready[:last], example.tools)
            served = tokenizer.apply_chat_template(
                list(messages), tools=list(tools) or None, add_generation_prompt=True, tokenize=False, **options
            )
            _prove_prompt(tokenizer, example, row, str(served), last - len(head))
        proven += len(own)
    return proven


def _prove_turn(
    chat: ChatFormat, tokenizer: PreTrainedTokenizerBase, example: Example, message: Message, index: int, ids: list[int], ends: set[int]
) -> None:
    found, error = parse_turn(chat, tokenizer, ids, 0, example.tools, chat.opens_thought)
    if error or ids[-1] not in ends or _meaning(found) != _meaning(message):
        text = decode(tokenizer, [ids])[0]
        raise MaskError(f"row {example.name}: the trained tokens of message {index} read {text!r}{error and f' ({error})'}")


def _prove_prompt(tokenizer: PreTrainedTokenizerBase, example: Example, row: Rendered, served: str, index: int) -> None:
    """Of the row whose last turn is message `index`."""
    runs = _runs(row.mask)
    bounds = [0, *(end for _, end in runs)]
    read = [row.ids[end:start] for end, (start, _) in zip(bounds, runs, strict=False)]
    texts = decode(tokenizer, read)
    if encode(tokenizer, texts) != read or bounds[-1] != len(row.ids):
        raise MaskError(f"row {example.name}: the prompt before message {index} differs from what a server would send")
    if decode(tokenizer, [row.ids[: runs[-1][0]]])[0] != served:
        raise MaskError(f"row {example.name}: the tokens do not read as the chat template renders the conversation")
