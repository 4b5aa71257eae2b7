"""A generated turn read back as a message: its text, its calls, or what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.chat.answers import without_thought
from tasks.chat.template import CALL, CALL_END, END, MARKER
from tasks.contract.client import Message
from tasks.contract.values import STRICT_JSON, half_character, unfit

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[list[int]]) -> list[str]:
    """The text of each list of ids, special tokens included."""
    texts: list[str] = tokenizer.backend_tokenizer.decode_batch(list(ids), skip_special_tokens=False)
    return texts


def _parse_call(text: str, number: int) -> Message:
    """One call's JSON: an object of a name and an object of arguments, nothing else; ValueError otherwise."""
    call = STRICT_JSON.decode(text)
    if not isinstance(call, dict) or set(call) != {"name", "arguments"}:
        raise ValueError("a call is an object with name and arguments")
    if not isinstance(call["name"], str) or not call["name"] or not isinstance(call["arguments"], dict):
        raise ValueError("a call's name is a string and its arguments are an object")
    if wrong := unfit(call["arguments"]) or half_character(call["name"]):
        raise ValueError(f"a call that no file can hold: {wrong}")
    return {"id": f"call_{number}", "type": "function", "function": call}


def _parse_text(text: str, first_call: int) -> Message:
    content, *calls = text.split(CALL)
    if calls:
        content = content.removesuffix("\n")
    message: Message = {"role": "assistant", "content": content}
    for number, piece in enumerate(calls, start=first_call):
        body, closed, rest = piece.partition(CALL_END)
        if not closed or rest.strip():
            raise ValueError("a call is not closed, or text follows it")
        message.setdefault("tool_calls", []).append(_parse_call(body, number))
    if MARKER.search(content) or not (content or calls):
        raise ValueError("a marker of the chat format in the reply, or an empty turn")
    return message


def parse_text(text: str, first_call: int) -> tuple[Message, str]:
    """A turn's text as (message, error); text that lacks the end marker ran out of tokens."""
    if not text.endswith(END):
        return {"role": "assistant", "content": text}, "max_tokens"
    try:
        return _parse_text(text.removesuffix(END), first_call), ""
    except (ValueError, RecursionError):
        return {"role": "assistant", "content": text.removesuffix(END)}, "parse_error"


def parse_turn(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], first_call: int = 0, thinking: bool = False
) -> tuple[Message, str]:
    """One generated turn as (assistant message, error). error: "", "parse_error", or "max_tokens" when <|im_end|> is
    missing.

    Calls are data: their JSON must be an object of exactly a name and arguments, without repeated keys or NaN; which tools
    exist and what they accept is the world's to judge. Calls get the ids call_<first_call>, call_<first_call + 1> ... A
    broken turn becomes a message whose content is the raw text. Thoughts before the turn are no part of the message; thinking: the
    prompt has opened them (`without_thought`).
    """
    text = decode(tokenizer, [list(ids)])[0]
    said = without_thought(text.removesuffix(END), thinking)
    return parse_text(said + END if text.endswith(END) else said, first_call)
