"""What a chat request is for the agent of a card: the prompt's tokens, and the turn read back. No model is needed for either."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.chat.local import kept
from tasks.chat.local.format import with_text_arguments
from tasks.chat.local.parsing import parse_turn
from tasks.contract.client import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Prompt:
    """A chat request as the agent reads it. world: whose system message and tools they are, "" for none. system: None without one.
    messages: all others, arguments of calls as objects. tools: those that the prompt carries. read_by: those by which calls are
    read."""

    world: str
    system: str | None
    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]]
    read_by: Sequence[Mapping[str, Any]]


class Prompting:
    """A tokenizer and an `agent_card.json`, read."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, card: Mapping[str, Any]) -> None:
        self.card, self.tokenizer = card, tokenizer
        self.chat = kept.from_json(json.dumps(card["chat_format"]))
        self.ends = self.chat.end_ids(tokenizer)

    def prompt(self, messages: Sequence[Mapping[str, Any]], world: str = "", tools: Sequence[Mapping[str, Any]] = ()) -> Prompt:
        """A request, read. messages: OpenAI's; without a system message in front the world's is put there. world: which of the card's,
        where it has several. tools: OpenAI's; those that the card knows are used as the card has them.

        Raises ValueError for one that the agent cannot be asked: no message, a world or a tool that it does not know.
        """
        if not messages:
            raise ValueError("messages is empty: a request holds at least one message")
        given = [with_read_arguments(message) for message in messages]
        system = given.pop(0).get("content") if given[0]["role"] == "system" else None
        name, about = self._world(world, tools, needed=system is None)
        known = self._tools(about, tools)
        written = known if self.card["tools_in_prompt"] else []
        read_by = known if self.chat.types_by_schema else []
        return Prompt(name, about["system"] if system is None else system, given, written, read_by)

    def ids(self, prompt: Prompt) -> list[int]:
        """The prompt, rendered whole."""
        return self.chat.prompt_ids(self.tokenizer, prompt.system, prompt.messages, prompt.tools)

    def turn(self, prompt: Prompt, ids: Sequence[int]) -> tuple[Message, str, str]:
        """(message, finish, error) of what the model produced: see `Reply`."""
        calls = sum(len(message.get("tool_calls") or ()) for message in prompt.messages)
        message, error = parse_turn(self.chat, self.tokenizer, ids, calls, prompt.read_by, self.chat.opens_thought)
        finish = "length" if error == "max_tokens" else "tool_calls" if message.get("tool_calls") else "stop"
        return with_text_arguments(message), finish, error if error != "max_tokens" else ""

    def _world(self, name: str, tools: Sequence[Mapping[str, Any]], needed: bool) -> tuple[str, Mapping[str, Any]]:
        """(name, card) of a world: the one that is named, the only one that has all of the tools or else some, or the only one."""
        worlds: Mapping[str, Mapping[str, Any]] = self.card["worlds"]
        if not worlds and not name:
            return "", {"system": None, "tools": []}
        if name:
            if name not in worlds:
                raise ValueError(f"world = {name!r}: this agent knows {', '.join(worlds)}.")
            return name, worlds[name]
        wanted = set(map(_name, tools))
        shared = {one: wanted & set(map(_name, about["tools"])) for one, about in worlds.items()}
        whole, some = [one for one in worlds if shared[one] == wanted], [one for one in worlds if shared[one]]
        for fitting in (whole, some, list(worlds) if needed else ()):
            if len(fitting) == 1:
                return fitting[0], worlds[fitting[0]]
        if needed:
            raise ValueError(
                f"this agent knows {len(worlds)} worlds ({', '.join(worlds)}), and the request does not say which: name one (world, "
                "in a chat request custom_inputs: {world: ...}), send the tools of one, or a system message of your own."
            )
        every = {_name(tool): tool for about in worlds.values() for tool in about["tools"]}
        return "", {"system": None, "tools": list(every.values())}

    def _tools(self, about: Mapping[str, Any], tools: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The schemas by which the turn is written and read: the card's own; a tool that only the caller knows needs a prompt that
        carries tools."""
        own = {_name(tool): tool for tool in about["tools"]}
        if not tools:
            return list(own.values())
        if not self.card["tools_in_prompt"] and (unknown := [_name(tool) for tool in tools if _name(tool) not in own]):
            raise ValueError(
                f"tools: {', '.join(unknown)}: this agent was trained without tools in its prompt and calls those that it has learnt "
                f"alone: {', '.join(own)}."
            )
        return [own.get(_name(tool), tool) for tool in tools]


def _name(tool: Mapping[str, Any]) -> str:
    return str(tool.get("function", tool).get("name"))


def with_read_arguments(message: Mapping[str, Any]) -> Message:
    """A message whose calls have their arguments as objects; other fields than the format knows are left out."""
    found = {name: message[name] for name in ("role", "content", "name", "tool_call_id", "tool_calls") if message.get(name) is not None}
    if not found.get("tool_calls"):
        return found
    calls = []
    for call in found["tool_calls"]:
        arguments = call["function"]["arguments"]
        read = json.loads(arguments) if isinstance(arguments, str) else arguments
        calls.append({"id": call.get("id", ""), "type": "function", "function": {"name": call["function"]["name"], "arguments": read}})
    return {**found, "tool_calls": calls}
