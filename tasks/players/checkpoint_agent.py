"""`CheckpointAgent`: a checkpoint in this process acts in many conversations at once, its cache kept across turns.

Tokens are never rendered twice (law 7): each turn encodes only what the model has not read yet, and a conversation is the
concatenation of the ids read and the ids produced. Generation itself is `tasks.players.local.decoding`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.chat.parsing import parse_turn
from tasks.chat.rendering import prompt_ids, suffix_ids
from tasks.chat.template import END
from tasks.checkpoints.folders import context_of
from tasks.contract.agent import Turn, World
from tasks.contract.client import Message
from tasks.players.local.decoding import Decoder, Row
from tasks.worlds.api.system_prompt import check_prompt, system_message

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class _Talk:
    """messages: how many of the conversation's messages are in tokens. calls: tool calls so far. new: ids read for this
    turn. first: they are a whole prompt. before: ids of earlier turns that the row has yet to read (`resume`)."""

    row: Row
    messages: int = 0
    calls: int = 0
    new: Sequence[int] = ()
    first: bool = True
    before: Sequence[int] = ()


class CheckpointAgent:
    """Plays with `model` (put it into eval mode first) and `tokenizer`; `rows` conversations at once.

    prompt: what the system message carries (`tasks.worlds.api.system_prompt`). temperature: 0 is greedy; log-probabilities are
    then those at temperature 1. max_turn_tokens: produced ids of one turn; max_episode_tokens: ids of a conversation, read and produced
    (448 in our measurements keeps one babbling episode from padding all others), and never more than the model has positions. Reaching
    any ends the conversation with `max_tokens`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        prompt: Mapping[str, str],
        *,
        name: str = "checkpoint",
        rows: int = 64,
        temperature: float = 0.0,
        max_turn_tokens: int = 96,
        max_episode_tokens: int = 448,
    ) -> None:
        check_prompt(prompt)
        self.name, self.capacity = name, rows
        self._tokenizer, self._prompt = tokenizer, prompt
        self._temperature, self._max_turn = temperature, max_turn_tokens
        most = min(max_episode_tokens, context_of(model))
        self._decoder = Decoder(model, int(tokenizer.convert_tokens_to_ids(END)), rows, most)
        self._talks: dict[str, _Talk] = {}
        self._names: dict[Row, str] = {}
        self._systems: dict[str, str] = {}
        self._full: list[str] = []

    @property
    def counts(self) -> Mapping[str, int]:
        """decode_steps, prefills, ids read and ids produced so far."""
        return self._decoder.counts

    def send(self, conversation: str, messages: Sequence[Message], world: World, seed: int) -> None:
        """Read what is new since the last turn. Raises RuntimeError when more than `rows` conversations are open."""
        talk = self._talks.get(conversation) or self._open(conversation)
        talk.first = not talk.messages
        if talk.first:
            talk.new = prompt_ids(self._tokenizer, self._system(world), messages)
        else:
            talk.new = suffix_ids(self._tokenizer, messages[talk.messages :])
        talk.messages = len(messages) + 1
        read, talk.before = [*talk.before, *talk.new], ()
        if not self._decoder.ask(talk.row, read, seed=seed, temperature=self._temperature, limit=self._max_turn):
            self._full.append(conversation)

    def resume(self, conversation: str, messages: Sequence[Message], turns: Sequence[Turn]) -> None:
        """Take up a conversation whose turns were this checkpoint's: their ids are read as they are (law 7), with the next turn's.

        Turns without ids were another's; then the next turn renders the whole conversation. Raises RuntimeError as `send` does.
        """
        if turns and turns[-1].ids:
            talk = self._open(conversation)
            talk.messages = len(messages)
            talk.calls = sum(len(message.get("tool_calls") or ()) for message in messages)
            talk.before = [token for turn in turns for token in (*turn.prompt_ids, *turn.ids)]

    def _open(self, conversation: str) -> _Talk:
        talk = self._talks[conversation] = _Talk(self._decoder.open())
        self._names[talk.row] = conversation
        return talk

    def poll(self) -> list[tuple[str, Turn]]:
        """Conversations without room for another turn first, then turns that are finished."""
        full, self._full = self._full, []
        out = [(name, Turn({"role": "assistant", "content": ""}, error="max_tokens")) for name in full]
        return out + [(self._names[row], self._turn(row)) for row in self._decoder.run()]

    def close(self, conversation: str) -> None:
        """Forget the conversation; its row is free."""
        row = self._talks.pop(conversation).row
        del self._names[row]
        self._decoder.close(row)

    def _system(self, world: World) -> str:
        if world.name not in self._systems:
            self._systems[world.name] = system_message(world, self._prompt)
        return self._systems[world.name]

    def _turn(self, row: Row) -> Turn:
        talk = self._talks[self._names[row]]
        message, error = parse_turn(self._tokenizer, row.ids, first_call=talk.calls)
        talk.calls += len(message.get("tool_calls") or ())
        return Turn(message, talk.new, row.ids, row.logprobs, error, talk.first)
