"""`ChatFormat`: how one checkpoint writes conversations, as its own tokenizer says. Data alone: found by `proof.find`.

A conversation is text that the assistant reads (a *prompt*) and text that it writes (its *turns*, with the token that ends each). In
form `whole` what was read and written before stays as it is, and a conversation is one row of tokens. In form `by turn` the template
writes the past anew before each turn, and each turn is a row of its own behind the prompt that a server would send.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tasks.chat.answers import THINK
from tasks.chat.local import hermes, qwen3_instruct, template_text
from tasks.chat.local.calls import CallGrammar, Tools
from tasks.chat.local.tokens import Rendered, encode
from tasks.contract.client import Message
from tasks.contract.params import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WHOLE, BY_TURN = "whole", "by turn"


class ChatRefused(BadInput):
    """A chat format that cannot be trusted, or a conversation that it cannot hold. property: what does not hold, in a word or two."""

    def __init__(self, message: str, failed: str = "") -> None:
        super().__init__(message)
        self.failed = failed


@dataclass(frozen=True)
class ChatFormat:
    """
    name: where the template is from. form: WHOLE or BY_TURN.
    template, variables: what prompts are rendered with; the variables are the tokenizer's special tokens and the template's options.
    style: `template` (tools and calls as the template writes them) or `hermes` (as text in messages that any template can hold).
    parts: contents are lists of parts. text_arguments: the template wants a call's arguments as JSON text.
    calls: how calls are written, None for a template without them. most_calls: of one turn, 0 for any number.
    words_beside_calls: whether a turn holds both; joint: what stands between them then; lead: blanks before calls alone.
    ends: the tokens that end a turn. reply_end, calls_end: the end of a reply and of calls where the template leaves it to what comes
    next, else "". openings: texts that may stand before what is said; closing: what stands between a reply and its end.
    thought: texts around a thought, ("", "") without. markers: texts that no data may hold. about: what the proof measured.
    """

    name: str
    form: str
    template: str
    variables: Mapping[str, Any]
    style: str = "template"
    parts: bool = False
    text_arguments: bool = False
    calls: CallGrammar | None = None
    ends: tuple[str, ...] = ()
    reply_end: str = ""
    calls_end: str = ""
    openings: tuple[str, ...] = ()
    closing: str = ""
    joint: str = ""
    lead: str = ""
    thought: tuple[str, str] = ("", "")
    most_calls: int = 0
    words_beside_calls: bool = True
    markers: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)

    # Texts.

    @cached_property
    def _marker(self) -> re.Pattern[str] | None:
        longest = sorted(self.markers, key=len, reverse=True)
        return re.compile("|".join(re.escape(one[0]) + "(?=" + re.escape(one[1:]) + ")" for one in longest)) if longest else None

    def plain(self, text: str) -> str:
        """Text from users, tools and teachers with the format's own markers broken by a blank, so that data cannot open a turn."""
        return self._marker.sub(lambda found: found[0] + " ", text) if self._marker else text

    def marked(self, text: str) -> bool:
        """Whether a text holds one of the format's own markers."""
        return bool(self._marker and self._marker.search(text))

    @property
    def types_by_schema(self) -> bool:
        """Whether calls are read by the schemas of the tools: values stand bare."""
        return self.calls is not None and self.calls.kind == "pairs"

    @cached_property
    def opens_thought(self) -> bool:
        """Whether its prompts have begun the assistant's thought."""
        return self.text([{"role": "user", "content": "Hi"}], prompt=True).rstrip().endswith(THINK)

    def _plain_value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.plain(value)
        if isinstance(value, dict):
            return {key: self._plain_value(value[key]) for key in sorted(value)}
        return [self._plain_value(item) for item in value] if isinstance(value, list) else value

    def readable(self, messages: Sequence[Message]) -> list[Message]:
        """Messages as they enter the tokens: markers in data broken (a system prompt is ours and may quote them), the keys of arguments
        in order (one call has one text), each tool result with its tool's name."""
        names: dict[str, str] = {}
        ready = []
        for message in messages:
            role, content = message["role"], message.get("content") or ""
            one: Message = {"role": role, "content": content if role == "system" else self.plain(content)}
            if calls := message.get("tool_calls"):
                names |= {call.get("id", ""): call["function"]["name"] for call in calls}
                one["tool_calls"] = [self._plain_call(call) for call in calls]
            if role == "tool":
                one |= {
                    "tool_call_id": message.get("tool_call_id", ""),
                    "name": message.get("name") or names.get(message.get("tool_call_id", ""), ""),
                }
            ready.append(one)
        return ready

    def _plain_call(self, call: Message) -> Message:
        function = call["function"]
        arguments = self._plain_value(function["arguments"])
        return {"id": call.get("id", ""), "type": "function", "function": {"name": function["name"], "arguments": arguments}}

    def unfit(self, message: Message) -> str:
        """Why the template cannot hold an assistant's message, or ""."""
        calls = message.get("tool_calls") or ()
        if self.most_calls and len(calls) > self.most_calls:
            return f"{len(calls)} calls in one turn"
        return "words beside calls" if calls and message.get("content") and not self.words_beside_calls else ""

    def text(self, messages: Sequence[Message], tools: Tools = (), *, prompt: bool) -> str:
        """A conversation (`readable`, the system message included) as the template writes it; template_text.TemplateError."""
        return template_text.render(self.template, *self.for_template(messages, tools), prompt=prompt, variables=self.variables)

    def for_template(self, messages: Sequence[Message], tools: Tools = ()) -> tuple[Sequence[Message], Tools]:
        """(messages, tools) as the template itself takes them, made of `readable` ones: what a server is sent."""
        messages, tools = (hermes.written(messages, tools), ()) if self.style == "hermes" else (messages, tools)
        if self.parts:
            messages = [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in messages]
        if self.text_arguments:
            messages = [with_text_arguments(message) for message in messages]
        return messages, tools

    def turn(self, messages: Sequence[Message], tools: Tools, served: str) -> str:
        """What the assistant writes in the last of `messages` behind the prompt `served`, its end included. ChatRefused when the
        template writes anything else before it than what it serves."""
        whole = self.text(messages, tools, prompt=False)
        if not whole.startswith(served):
            raise ChatRefused(_differs("the rendered turn does not begin with the prompt that a server sends", served, whole), "prompt")
        return self._ended(whole[len(served) :], bool(messages[-1].get("tool_calls")))

    def _ended(self, turn: str, calls: bool) -> str:
        if missing := self.calls_end if calls else self.reply_end:
            return turn + missing
        end = max((turn.rfind(end) + len(end) for end in self.ends if end in turn), default=0)
        rest = turn[end:]
        for token in self.variables.values():  # one that stands behind a conversation, and nowhere in it
            rest = rest.replace(token, "") if isinstance(token, str) and token else rest
        if not end or rest.strip():
            raise ChatRefused(f"no token ends the turn {turn[-60:]!r}; it should be one of {', '.join(self.ends)}", "end")
        return turn[:end]

    def segments(self, system: str | None, messages: Sequence[Message], tools: Tools = ()) -> list[tuple[str, str]]:
        """(prompt, turn) of each assistant turn: everything that is read before it, from the beginning, and what is written."""
        head: list[Message] = [] if system is None else [{"role": "system", "content": system}]
        ready = head + self.readable(messages)
        pairs = []
        for index, message in enumerate(ready):
            if message["role"] == "assistant":
                if why := self.unfit(message):
                    raise ChatRefused(f"the chat format cannot hold {why}", "unfit")
                served = self.text(ready[:index], tools, prompt=True)
                pairs.append((served, self.turn(ready[: index + 1], tools, served)))
        return pairs

    # Tokens.

    def rows(
        self, tokenizer: PreTrainedTokenizerBase, conversations: Sequence[tuple[str | None, Sequence[Message], Tools]]
    ) -> list[list[Rendered]]:
        """The rows of each conversation (system, messages, tools): one in form WHOLE, one a turn in form BY_TURN; the mask is 1 on what
        the assistant writes. ChatRefused for a conversation that the format cannot hold."""
        pieces = [self.pieces(*conversation) for conversation in conversations]
        ids = iter(encode(tokenizer, [text for rows in pieces for row in rows for text in row]))
        return [[Rendered.of([next(ids) for _ in row]) for row in rows] for rows in pieces]

    def pieces(self, system: str | None, messages: Sequence[Message], tools: Tools = ()) -> list[list[str]]:
        """The rows of a conversation as texts read and written by turns: [read, turn, read, turn ...]."""
        if self.by_hand:
            texts = qwen3_instruct.turn_texts(self.ready(system, messages, tools), prompt=False)[:-1]
            return [texts] if texts else []
        return self.joined(self.segments(system, messages, tools))

    def joined(self, segments: Sequence[tuple[str, str]]) -> list[list[str]]:
        """`pieces` of a conversation whose `segments` are known. ChatRefused when form WHOLE does not hold in it."""
        if self.form == BY_TURN:
            return [list(pair) for pair in segments]
        row: list[str] = []
        before = ""
        for served, turn in segments:
            if not served.startswith(before):
                raise ChatRefused(_differs("the template writes the past anew", before, served), "prefix")
            row += [served[len(before) :], turn]
            before = served + turn
        return [row] if row else []

    @cached_property
    def by_hand(self) -> bool:
        """Whether the template is the one that `qwen3_instruct` also writes by hand."""
        return self.template == qwen3_instruct.CHAT_TEMPLATE and self.style == "template" and self.form == WHOLE

    def ready(self, system: str | None, messages: Sequence[Message], tools: Tools) -> list[Message]:
        """`readable`, for `qwen3_instruct`: with the tools in the system message, where its template writes them."""
        ready = self.readable(messages)
        if tools:
            return [{"role": "system", "content": hermes.with_tools(system, tools)}, *ready]
        return ready if system is None else [{"role": "system", "content": system}, *ready]

    def prompt_text(self, system: str | None, messages: Sequence[Message], tools: Tools = ()) -> str:
        """Everything that is read before the next turn, from the beginning of the conversation."""
        if self.by_hand:
            return "".join(qwen3_instruct.turn_texts(self.ready(system, messages, tools), prompt=True))
        head: list[Message] = [] if system is None else [{"role": "system", "content": system}]
        return self.text(head + self.readable(messages), tools, prompt=True)

    def prompt_ids(
        self, tokenizer: PreTrainedTokenizerBase, system: str | None, messages: Sequence[Message], tools: Tools = ()
    ) -> list[int]:
        """`prompt_text` as ids."""
        return encode(tokenizer, [self.prompt_text(system, messages, tools)])[0]

    def suffix_ids(
        self, tokenizer: PreTrainedTokenizerBase, system: str | None, messages: Sequence[Message], tools: Tools = ()
    ) -> list[int]:
        """Form WHOLE: the ids read between the assistant's last turn, which ended in one of `ends`, and its next. messages: all of the
        conversation, which ends in what came since that turn."""
        last = max(index for index, message in enumerate(messages) if message["role"] == "assistant")
        if self.by_hand:
            return encode(tokenizer, [qwen3_instruct.suffix_text(self.readable(messages[last + 1 :]))])[0]
        head: list[Message] = [] if system is None else [{"role": "system", "content": system}]
        ready = head + self.readable(messages)
        last += len(head)
        before = self.text(ready[:last], tools, prompt=True)
        before += self.turn(ready[: last + 1], tools, before)
        served = self.text(ready, tools, prompt=True)
        if not served.startswith(before):
            raise ChatRefused(_differs("the template writes the past anew", before, served), "prefix")
        return encode(tokenizer, [served[len(before) :]])[0]

    def end_ids(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """The ids that end a turn: where a decoder stops."""
        return [int(tokenizer.convert_tokens_to_ids(end)) for end in self.ends]

    def with_form(self, form: str, **about: Any) -> ChatFormat:
        """The same in another form."""
        return replace(self, form=form, about={**self.about, **about})


def with_text_arguments(message: Message) -> Message:
    """A message whose calls have their arguments as JSON text, as OpenAI's have them."""
    if not message.get("tool_calls"):
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False)}}
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


def _differs(what: str, one: str, other: str) -> str:
    at = next((index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return f"{what}: {one[max(0, at - 20) : at + 30]!r} against {other[max(0, at - 20) : at + 30]!r}"
