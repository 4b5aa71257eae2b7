"""Chat with a served checkpoint: a request becomes the ids that `evaluate` would have had read, and the ids produced a message."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tasks.chat.local.parsing import reply_alone
from tasks.chat.local.tokens import decode
from tasks.contract.client import Message
from tasks.players.local.generation import Generated, Sampling
from tasks.serving.endpoint.chat_request import ChatRequest
from tasks.serving.endpoint.conversations import Conversations
from tasks.serving.endpoint.kept import Kept
from tasks.serving.endpoint.prompting import Prompt, Prompting, with_read_arguments


@dataclass(frozen=True)
class Owed:
    """An answer that is to be made. ids: what it reads. may_call: whether its calls are read as calls. shadow_of: id of the answer
    beside which it is made, "" for one that goes to whoever asked. about: more that is kept with it."""

    id: str
    request: ChatRequest
    prompt: Prompt
    ids: Sequence[int]
    sampling: Sampling
    may_call: bool
    shadow_of: str = ""
    created: int = field(default_factory=lambda: int(time.time()))
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """message: OpenAI's. finish: stop, tool_calls or length. error: "", or parse_error for a call that is none."""

    message: Message
    finish: str
    produced: int
    error: str = ""


@dataclass
class Chat:
    """prompting: of the agent's card. kept: where answers are written. of_adapter: whether the card is that of one adapter, which its
    checkpoint then names, and not of a base that adapters may be put on."""

    prompting: Prompting
    kept: Kept = field(default_factory=lambda: Kept(None))
    conversations: Conversations = field(default_factory=Conversations)
    of_adapter: bool = False
    _logged: set[str] = field(default_factory=set)

    def owed(self, request: ChatRequest, adapter: str) -> Owed:
        """A request, ready for the engine. BadInput or ValueError for one that the agent cannot be asked."""
        tools = [tool.model_dump() for tool in request.tools or ()]
        world = (request.custom_inputs or {}).get("world", "")
        prompt = self.prompting.prompt([one.model_dump(exclude_none=True) for one in request.messages], world, tools)
        self._tell_others(tools)
        if request.tool_choice == "none":
            prompt = replace(prompt, tools=[])
        usual = self.prompting.card["generation"]
        sampling = Sampling(
            secrets.randbelow(2**63) if request.seed is None else request.seed,
            float(usual["temperature"] if request.temperature is None else request.temperature),
            int(request.max_completion_tokens or request.max_tokens or usual["max_new_tokens"]),
            tuple(self.prompting.ends),
            adapter,
            1.0 if request.top_p is None else request.top_p,
        )
        ids = self.conversations.ids(adapter, self.prompting, prompt)
        return Owed(f"chatcmpl-{secrets.token_hex(12)}", request, prompt, ids, sampling, request.tool_choice != "none")

    def _tell_others(self, tools: Sequence[Mapping[str, Any]]) -> None:
        """Log, once a tool, that a request brought one with which the agent was never evaluated."""
        worlds = self.prompting.card["worlds"].values()
        known = {one["function"]["name"] for about in worlds for one in about["tools"]}
        if known and (others := {str(one["function"]["name"]) for one in tools} - known - self._logged):
            self._logged |= others
            told = "a request brought tools with which %s was never evaluated: %s. It may call them; nobody knows how well"
            logging.getLogger(__name__).warning(told, self.prompting.card["name"], ", ".join(sorted(others)))

    def text(self, ids: Sequence[int]) -> str:
        """Of a turn so far, without thoughts and what the template writes before a reply."""
        return reply_alone(self.prompting.chat, decode(self.prompting.tokenizer, [list(ids)])[0], self.prompting.chat.opens_thought)

    def stopped(self, owed: Owed, ids: Sequence[int]) -> bool:
        """Whether one of the request's stop texts is in the turn."""
        return bool(owed.request.stop) and _cut(text := self.text(ids), owed.request.stop) != text

    def words(self, owed: Owed, ids: Sequence[int]) -> str:
        """Of a turn so far, what is certain to be in its message's content: no call, no end, nothing that may become one."""
        chat, text = self.prompting.chat, _cut(self.text(ids), owed.request.stop)
        starts = [*owed.request.stop, *chat.ends, *chat.openings, chat.thought[0].strip(), chat.closing]
        if owed.may_call and chat.calls:
            if not chat.calls.open.strip() and text.lstrip().startswith("{"):
                return ""
            text = chat.calls.split(text)[0]
            starts += [chat.calls.open.strip()]
        text = text.rstrip("\ufffd")
        held = max((size for start in starts for size in range(1, len(start) + 1) if text.endswith(start[:size])), default=0)
        return text[: len(text) - held].rstrip()

    def answer(self, owed: Owed, made: Generated) -> Answer:
        """The message of a finished turn; the conversation is remembered and kept."""
        read, finish, error = self.prompting.turn(owed.prompt, made.ids)
        whole = finish != "length" and not error
        text = self.text(made.ids)
        if (cut := _cut(text, owed.request.stop)) != text:
            read, finish, whole = {"role": "assistant", "content": cut}, "stop", False
        elif not owed.may_call and read.get("tool_calls"):
            end = next((end for end in self.prompting.chat.ends if text.endswith(end)), "")
            read, finish, whole = {"role": "assistant", "content": text.removesuffix(end)}, "stop", False
        if whole:
            self.conversations.remember(owed.sampling.adapter, owed.prompt, with_read_arguments(read), [*owed.ids, *made.ids])
        self.keep(owed, [read], finish, made.ids)
        message = {**read, "content": read.get("content") or None} if read.get("tool_calls") else read
        return Answer(message, finish, len(made.ids), error)

    def keep(self, owed: Owed, more: Sequence[Message], finish: str, made: Sequence[int]) -> None:
        """Write a conversation: what was asked and what came of it. made: ids of the reply."""
        request, prompt = owed.request, owed.prompt
        sampling = {name: value for name, value in asdict(owed.sampling).items() if name not in ("stop", "adapter")}
        system = [] if prompt.system is None else [{"role": "system", "content": prompt.system}]
        messages = [*system, *(one.model_dump(exclude_none=True) for one in request.messages if one.role != "system"), *more]
        about = {"id": owed.id, "created": owed.created, "model": request.model, "world": prompt.world}
        about |= {"checkpoint": self.prompting.card["checkpoint"], "adapter": "" if self.of_adapter else owed.sampling.adapter}
        about |= {"shadow_of": owed.shadow_of} if owed.shadow_of else {}
        about |= {"problem": (request.metadata or {}).get("problem", ""), **owed.about}
        tools = [tool.model_dump() for tool in request.tools or ()]
        ids = {"prompt_ids": list(owed.ids), "ids": list(made), "finish": finish}
        self.kept.write({**about, "messages": messages, "tools": tools, "sampling": {**sampling, "stop": request.stop}, **ids})


def _cut(text: str, stops: Sequence[str]) -> str:
    """Text before the first of some texts in it."""
    return text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))]
