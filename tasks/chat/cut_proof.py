"""Whether a template writes all of a conversation: some cut long texts, or leave out what lies far back.

Both pass on short conversations, and whoever trains on the rest of a tool's result learns to answer from what it never read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tasks.chat.local.format import ChatFormat, ChatRefused
from tasks.chat.local.template_text import TemplateError
from tasks.chat.samples import TOOLS, Sample, long_sample
from tasks.contract.client import Message

WORDS = 1200
"""Words of each long text, of some 10 characters: longer than policies and results of tools are."""
NAMES = {"system": "system message", "user": "user's words", "assistant": "assistant's words", "tool": "result of a tool"}


def prove_all_written(chat: ChatFormat) -> None:
    """ChatRefused for a template that cuts a long text of any role, a call's argument or a tool's description, or leaves out messages
    of a long conversation. What the assistant said and called earlier may be left out whole: form BY_TURN is for such templates."""
    for talk in (_long_texts(), long_sample()):
        head: list[Message] = [] if talk.system is None else [{"role": "system", "content": talk.system}]
        messages = [*head, *chat.readable(talk.messages)]
        try:
            written = chat.text(messages, talk.tools, prompt=False)
        except TemplateError as error:
            raise ChatRefused(f"renders: the template raises on {talk.name}: {error}", "renders") from None
        for what, text, optional in _texts(messages, talk.tools):
            if text in written:
                continue
            words = [word for word in text.split(" ") if any(letter.isdigit() for letter in word)]  # no other text has these
            if (kept := sum(word in written for word in words)) or not optional:
                raise ChatRefused(
                    f"cut: in {talk.name} the template leaves out the {what}: of its {len(words):,} words {kept:,} are written. An "
                    "agent would be trained and served without what it has to read; take the cut out of the template.",
                    "cut",
                )


def _texts(messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str, bool]]:
    """(what it is, text, whether all of it may be left out) of what has to be written."""
    for place, message in enumerate(messages, 1):
        which = f"message {place} of {len(messages)}"
        said_before = message["role"] == "assistant" and place < len(messages)
        if message["content"]:
            yield f"{NAMES[message['role']]} ({which})", message["content"], said_before
        for call in message.get("tool_calls") or ():
            yield from ((f"argument of a call ({which})", value, said_before) for value in call["function"]["arguments"].values())
    yield from (("description of a tool", tool["function"]["description"], False) for tool in tools)


def _long_texts() -> Sample:
    """A conversation in which every text has WORDS words, each of which is there once."""
    said = iter(range(100))

    def text() -> str:
        place = next(said)
        return " ".join(f"qz{place:02}w{number:04}" for number in range(WORDS))

    call = {"id": "call_0", "type": "function", "function": {"name": "get_order", "arguments": {"order_id": text()}}}
    messages: list[Message] = [
        {"role": "user", "content": text()},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_0", "name": "get_order", "content": text()},
        {"role": "assistant", "content": text()},
        {"role": "user", "content": text()},
        {"role": "assistant", "content": text()},
    ]
    described = [{**tool, "function": {**tool["function"], "description": text()}} for tool in TOOLS]
    return Sample("long texts", text(), messages, described)
