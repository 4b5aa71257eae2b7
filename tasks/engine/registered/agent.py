"""`Agent`: a checkpoint that answers chat requests by its card: as `evaluate` asked it, whoever loads it.

This file, `chat_model.py` and what they import travel with every registered version, under the name `cairn_agent`.
"""

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
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Reply:
    """message: OpenAI's, arguments of calls as JSON text. finish: "stop", "tool_calls" or "length". error: "", or "parse_error" for a
    turn that is not written as the chat format has it; its content is then the raw text. read, produced: tokens."""

    message: Message
    finish: str
    error: str
    read: int
    produced: int


class Agent:
    """A model in eval mode, its tokenizer and the version's `agent_card.json`, read: {worlds: name -> {system, tools}, tools_in_prompt,
    chat_format, generation: {temperature, max_new_tokens}}."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, card: Mapping[str, Any]) -> None:
        self.card = card
        self._model, self._tokenizer = model, tokenizer
        self._chat = kept.from_json(json.dumps(card["chat_format"]))
        self._ends = self._chat.end_ids(tokenizer)

    def reply(
        self,
        messages: Sequence[Mapping[str, Any]],
        world: str = "",
        tools: Sequence[Mapping[str, Any]] = (),
        temperature: float | None = None,
        max_tokens: int | None = None,
    ) -> Reply:
        """The agent's next turn. messages: OpenAI's; without a system message in front the world's is put there. world: which of the
        card's, where it has several. tools: OpenAI's; those that the card knows are used as the card has them. temperature, max_tokens:
        of the turn, the card's by default; 0 is greedy.

        Raises ValueError for a request that the agent cannot be asked: no message, a world or a tool that it does not know.
        """
        if not messages:
            raise ValueError("messages is empty: a request holds at least one message")
        given = [_with_read_arguments(message) for message in messages]
        system = given.pop(0).get("content") if given[0]["role"] == "system" else None
        about = self._world(world, tools, needed=system is None)
        known = self._tools(about, tools)
        system = about["system"] if system is None else system
        written = known if self.card["tools_in_prompt"] else []
        ids = self._chat.prompt_ids(self._tokenizer, system, given, written)
        new = self._generate(ids, self._or("temperature", temperature), int(self._or("max_new_tokens", max_tokens)))
        calls = sum(len(message.get("tool_calls") or ()) for message in given)
        read_by = known if self._chat.types_by_schema else []
        message, error = parse_turn(self._chat, self._tokenizer, new, calls, read_by, self._chat.opens_thought)
        finish = "length" if error == "max_tokens" else "tool_calls" if message.get("tool_calls") else "stop"
        return Reply(with_text_arguments(message), finish, error if error != "max_tokens" else "", len(ids), len(new))

    def _or(self, name: str, value: float | None) -> float:
        return float(self.card["generation"][name] if value is None else value)

    def _world(self, name: str, tools: Sequence[Mapping[str, Any]], needed: bool) -> Mapping[str, Any]:
        """The card of a world: the one that is named, the only one, or the only one that has all of the tools."""
        worlds: Mapping[str, Mapping[str, Any]] = self.card["worlds"]
        if name:
            if name not in worlds:
                raise ValueError(f"world = {name!r}: this agent knows {', '.join(worlds)}.")
            return worlds[name]
        wanted = set(map(_name, tools))
        fitting = [about for about in worlds.values() if wanted <= set(map(_name, about["tools"]))]
        if len(fitting) == 1:
            return fitting[0]
        if needed:
            raise ValueError(
                f"this agent knows {len(worlds)} worlds ({', '.join(worlds)}), and the request does not say which: name one (world, "
                "in a chat request custom_inputs: {world: ...}), send the tools of one, or a system message of your own."
            )
        every = {_name(tool): tool for about in worlds.values() for tool in about["tools"]}
        return {"system": None, "tools": list(every.values())}

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

    def _generate(self, ids: Sequence[int], temperature: float, most: int) -> list[int]:
        """The ids of a turn, its end included; at most as many as the model has positions for."""
        import torch

        room = int(getattr(self._model.config, "max_position_embeddings", 0) or len(ids) + most) - len(ids)
        if room <= 0:
            raise ValueError(f"the conversation's {len(ids)} tokens fill the model's {len(ids) + room} positions")
        sampled: dict[str, Any] = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
        if temperature > 0:
            sampled = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        read = torch.tensor([list(ids)], device=self._model.device)
        with torch.no_grad():
            made = self._model.generate(
                read,
                attention_mask=torch.ones_like(read),
                max_new_tokens=min(most, room),
                eos_token_id=self._ends,
                pad_token_id=self._ends[0],
                **sampled,
            )
        return [int(one) for one in made[0, len(ids) :]]


def _name(tool: Mapping[str, Any]) -> str:
    return str(tool.get("function", tool).get("name"))


def _with_read_arguments(message: Mapping[str, Any]) -> Message:
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
