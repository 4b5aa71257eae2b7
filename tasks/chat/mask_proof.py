"""The mask proof (law 7): the trained tokens of a row are the assistant's own, and its prompt is the serving prompt."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.chat.parsing import decode, parse_text
from tasks.chat.rendering import Rendered, encode, readable, suffix_text, turn_texts
from tasks.chat.template import plain
from tasks.contract.client import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Example:
    """One training row: its name (for errors), the system prompt, the messages without it, and their tokens."""

    name: str
    system: str | None
    messages: Sequence[Message]
    rendered: Rendered


class MaskError(ValueError):
    """The trained tokens of a row are not the assistant's own, or its prompt is not the serving prompt."""


def _runs(mask: Sequence[int]) -> list[tuple[int, int]]:
    """The trained spans [start, end) of a mask."""
    edges = [index for index in range(1, len(mask)) if mask[index] != mask[index - 1]]
    bounds = [0, *edges, len(mask)] if mask else []
    return [(start, end) for start, end in itertools.pairwise(bounds) if mask[start]]


def _meaning(message: Message) -> tuple[str, list[tuple[str, Any]]]:
    calls = [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or ()]
    return plain(message.get("content") or ""), calls


def _served(example: Example) -> list[str]:
    """What a server encodes before each assistant turn: the whole prompt first, then only what came since."""
    texts, before = [], 0
    for index, message in enumerate(example.messages):
        if message["role"] == "assistant":
            since = example.messages[before:index]
            texts.append(suffix_text(since) if before else turn_texts(example.system, since, prompt=True)[0])
            before = index + 1
    return texts


def _prove(example: Example, served: Sequence[list[int]], turns: Sequence[str], whole: str, template: str) -> None:
    """served: ids before each turn; turns: the trained spans' texts; whole: all tokens' text; template: the witness."""
    own = [index for index, message in enumerate(example.messages) if message["role"] == "assistant"]
    runs = _runs(example.rendered.mask)
    if len(runs) != len(own) or len(example.rendered.ids) != len(example.rendered.mask):
        raise MaskError(f"row {example.name}: {len(runs)} trained spans for {len(own)} assistant turns")
    end = 0
    for (start, stop), index, prompt, text in zip(runs, own, served, turns, strict=True):
        if example.rendered.ids[end:start] != prompt:
            raise MaskError(f"row {example.name}: the prompt before message {index} differs from what a server would send")
        message, error = parse_text(text, 0)
        if error or _meaning(message) != _meaning(example.messages[index]):
            raise MaskError(f"row {example.name}: the trained tokens of message {index} read {text!r}{error and f' ({error})'}")
        end = stop
    if whole != template:
        raise MaskError(f"row {example.name}: the tokens do not read as the chat template renders the conversation")


def _sorted(message: Message) -> Message:
    """The message with the keys of its arguments in order, at every depth: one call has one text."""
    if not message.get("tool_calls"):
        return message
    return {**message, "tool_calls": json.loads(json.dumps(message["tool_calls"], sort_keys=True))}


def _conversation(example: Example) -> list[Message]:
    head = [] if example.system is None else [{"role": "system", "content": example.system}]
    return head + [{**_sorted(message), "content": readable(message)} for message in example.messages]


def prove_masks(tokenizer: PreTrainedTokenizerBase, examples: Iterable[Example], chunk: int = 256) -> int:
    """Law 7, for every row: the trained tokens decode to exactly the assistant's messages and calls, what stands before each
    of them is what a server would send, and the whole reads as the checkpoint's chat template renders it (an independent
    witness).

    Returns how many assistant turns were proven; works through `chunk` rows at a time. Raises MaskError naming row and
    message.
    """
    proven, waiting = 0, iter(examples)
    while rows := list(itertools.islice(waiting, chunk)):
        texts = [_served(row) for row in rows]
        served = iter(encode(tokenizer, [text for row in texts for text in row]))
        spans = [[row.rendered.ids[start:stop] for start, stop in _runs(row.rendered.mask)] for row in rows]
        turns = iter(decode(tokenizer, [span for row in spans for span in row]))
        whole = decode(tokenizer, [row.rendered.ids for row in rows])
        template = tokenizer.apply_chat_template([_conversation(row) for row in rows], tokenize=False)
        for index, row in enumerate(rows):
            prompts = [next(served) for _ in texts[index]]
            _prove(row, prompts, [next(turns) for _ in spans[index]], whole[index], template[index])
            proven += len(spans[index])
    return proven
