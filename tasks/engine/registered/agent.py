"""`Agent`: a checkpoint that answers chat requests by its card: as `evaluate` asked it, whoever loads it.

This file, `chat_model.py` and what they import travel with every registered version, under the name `cairn_agent`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.contract.client import Message
from tasks.serving.endpoint.prompting import Prompting

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
        self._model, self._prompting = model, Prompting(tokenizer, card)

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
        prompt = self._prompting.prompt(messages, world, tools)
        ids = self._prompting.ids(prompt)
        new = self._generate(ids, self._or("temperature", temperature), int(self._or("max_new_tokens", max_tokens)))
        return Reply(*self._prompting.turn(prompt, new), len(ids), len(new))

    def _or(self, name: str, value: float | None) -> float:
        return float(self.card["generation"][name] if value is None else value)

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
                eos_token_id=self._prompting.ends,
                pad_token_id=self._prompting.ends[0],
                **sampled,
            )
        return [int(one) for one in made[0, len(ids) :]]
