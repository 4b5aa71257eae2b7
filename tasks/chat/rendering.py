"""A conversation as token ids, built turn by turn, exactly as a server sees them.

What the model reads before a turn is encoded apart from what it produces in it. Law 7, "tokens are never re-rendered", rests on
`render`, `suffix_ids` and `tasks.chat.mask_proof`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.chat.template import ANSWER, ANSWER_END, CALL, CALL_END, END, OPEN, START, plain
from tasks.contract.client import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Rendered:
    """A conversation as tokens. ids: all of them; mask: 1 where the assistant must produce the token, else 0 (same
    length)."""

    ids: list[int]
    mask: list[int]


def readable(message: Message) -> str:
    """A message's content as it enters the tokens: a system prompt is ours and may quote markers, anything else may not."""
    content: str = message.get("content") or ""
    return content if message["role"] == "system" else plain(content)


def _call_text(call: Message) -> str:
    function = call["function"]
    arguments = json.dumps(function["arguments"], ensure_ascii=False, sort_keys=True)  # as rows keep them
    return f'{CALL}\n{{"name": "{function["name"]}", "arguments": {arguments}}}\n{CALL_END}'


def turn_text(message: Message) -> str:
    """What the assistant produces in one turn: content, tool calls and the end marker."""
    content = plain(message.get("content") or "")
    parts = [content] if content else []
    return "\n".join(parts + [_call_text(call) for call in message.get("tool_calls") or ()]) + END


def _read_text(messages: Sequence[Message]) -> str:
    """The text of messages that the assistant reads (system, user, tool); neighbouring tool answers share one user turn."""
    parts = []
    for index, message in enumerate(messages):
        content = readable(message)
        if message["role"] != "tool":
            parts.append(f"{START}{message['role']}\n{content}{END}\n")
            continue
        first = index == 0 or messages[index - 1]["role"] != "tool"
        last = index == len(messages) - 1 or messages[index + 1]["role"] != "tool"
        opening, closing = f"{START}user" if first else "", f"{END}\n" if last else ""
        parts.append(f"{opening}\n{ANSWER}\n{content}\n{ANSWER_END}{closing}")
    return "".join(parts)


def turn_texts(system: str | None, messages: Sequence[Message], prompt: bool) -> list[str]:
    """Texts read and produced by turns: [read, turn, read, turn, ..., read]. `prompt`: the last read ends by asking for a
    turn."""
    head: list[Message] = [] if system is None else [{"role": "system", "content": system}]
    segments: list[str] = []
    waiting = head
    for message in messages:
        if message["role"] != "assistant":
            waiting = [*waiting, message]
            continue
        segments += [suffix_text(waiting) if segments else _read_text(waiting) + OPEN, turn_text(message)]
        waiting = []
    return [*segments, ("\n" if segments else "") + _read_text(waiting) + (OPEN if prompt else "")]


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, without special tokens added. The tokenizer's own batch call: transformers' wrapper costs more than the
    encoding of short texts."""
    return [encoding.ids for encoding in tokenizer.backend_tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def render(tokenizer: PreTrainedTokenizerBase, system: str | None, messages: Sequence[Message]) -> Rendered:
    """A whole conversation as tokens, with the assistant's own marked. `system` None: no system turn."""
    return render_many(tokenizer, [(system, messages)])[0]


def render_many(tokenizer: PreTrainedTokenizerBase, conversations: Sequence[tuple[str | None, Sequence[Message]]]) -> list[Rendered]:
    """`render` for many conversations with one call of the tokenizer."""
    texts = [turn_texts(system, messages, prompt=False) for system, messages in conversations]
    encoded = iter(encode(tokenizer, [text for segments in texts for text in segments]))
    rendered = []
    for segments in texts:
        ids: list[int] = []
        mask: list[int] = []
        for index in range(len(segments)):
            piece = next(encoded)
            ids += piece
            mask += [index % 2] * len(piece)
        rendered.append(Rendered(ids, mask))
    return rendered


def prompt_ids(tokenizer: PreTrainedTokenizerBase, system: str | None, messages: Sequence[Message]) -> list[int]:
    """All ids that the model reads before its next turn, from the beginning of a conversation, generation prompt
    included."""
    return [token for piece in encode(tokenizer, turn_texts(system, messages, prompt=True)) for token in piece]


def suffix_text(messages_since: Sequence[Message]) -> str:
    """The text behind `suffix_ids`."""
    return "\n" + _read_text(messages_since) + OPEN


def suffix_ids(tokenizer: PreTrainedTokenizerBase, messages_since: Sequence[Message]) -> list[int]:
    """The ids that the model reads between its last turn (which ended in <|im_end|>) and its next, generation prompt
    included.

    messages_since: the user and tool messages after that turn, none of them the assistant's.
    """
    return encode(tokenizer, [suffix_text(messages_since)])[0]
