"""A generated turn read back as a message: its text, its calls, or what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.chat.answers import without_thought
from tasks.chat.local.calls import Tools
from tasks.chat.local.format import ChatFormat
from tasks.chat.local.tokens import decode
from tasks.contract.client import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def parse_turn(
    chat: ChatFormat,
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[int],
    first_call: int = 0,
    tools: Tools = (),
    opened: bool = False,
) -> tuple[Message, str]:
    """One generated turn as (assistant message, error). error: "", "parse_error", or "max_tokens" when no end token came.

    Calls are data: their JSON holds no repeated keys and no NaN; which tools exist and what they accept is the world's to judge. tools:
    their schemas, by which templates that write bare values tell 7 from "7". Calls get the ids call_<first_call>, call_<first_call + 1>
    ... A broken turn becomes a message whose content is the raw text. Thoughts before the turn are no part of the message; opened: the
    prompt has opened one (`ChatFormat.opens_thought`).
    """
    text = decode(tokenizer, [list(ids)])[0]
    end = next((end for end in chat.ends if text.endswith(end)), "")
    text = text.removesuffix(end)
    if not end:
        return {"role": "assistant", "content": without_thought(text, opened)}, "max_tokens"
    try:
        return read_turn(chat, text, first_call, tools, opened), ""
    except (ValueError, RecursionError):
        return {"role": "assistant", "content": without_thought(text, opened)}, "parse_error"


def read_turn(chat: ChatFormat, text: str, first_call: int = 0, tools: Tools = (), opened: bool = False) -> Message:
    """A turn's text without its end as a message; ValueError when it is none, or one that the format does not hold."""
    words, calls = reply_alone(chat, text, opened), None
    if chat.style == "hermes":
        words = words.removesuffix(chat.closing)
    if chat.calls:
        words, calls = chat.calls.split(words)
    words = words.removesuffix(chat.closing if calls is None else chat.joint) if calls is None or words != chat.lead else ""
    if calls is not None and not chat.words_beside_calls and not words.strip():
        words = ""
    message: Message = {"role": "assistant", "content": words}
    if calls is not None and chat.calls:
        read = chat.calls.read(calls, tools)
        if any(chat.marked(json.dumps(call, ensure_ascii=False)) for call in read):
            raise ValueError("a marker of the chat format in a call")
        numbered = enumerate(read, start=first_call)
        message["tool_calls"] = [{"id": f"call_{number}", "type": "function", "function": call} for number, call in numbered]
    if chat.marked(words) or not (words or calls):
        raise ValueError("a marker of the chat format in the reply, or an empty turn")
    if why := chat.unfit(message):
        raise ValueError(why)
    return message


def reply_alone(chat: ChatFormat, text: str, opened: bool) -> str:
    """The text without thoughts and without what the template writes before a reply."""
    start, stop = chat.thought
    if start and text.lstrip().startswith(start.strip()) and stop.strip():
        text = text.partition(stop.strip())[2]
        opened = False
    text = without_thought(text, opened)
    for opening in chat.openings:
        if text.startswith(opening):
            return text[len(opening) :]
        if opening.strip() and text.lstrip().startswith(opening.strip()):
            return text.lstrip()[len(opening.strip()) :]
    return text
