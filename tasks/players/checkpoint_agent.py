"""`CheckpointAgent`: a checkpoint in this process acts in many conversations at once, its cache kept across turns.

Tokens are never rendered twice (law 7): each turn encodes only what the model has not read yet, and a conversation is the
concatenation of the ids read and the ids produced. Where the checkpoint's chat format writes the past anew (`by turn`), each turn
reads a whole prompt, as a server would send it, and its ids are kept with that. Generation itself is an engine's
(`tasks.players.local.generation`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tasks.chat.local.format import BY_TURN
from tasks.chat.local.kept import chat_of
from tasks.chat.local.parsing import parse_turn
from tasks.checkpoints import memory
from tasks.checkpoints.adapters import active_adapter
from tasks.contract.agent import Turn, World
from tasks.contract.client import Message
from tasks.contract.computed import TOKENS
from tasks.players.local.generation import Engine, Generated, Sampling
from tasks.worlds.api.system_prompt import check_prompt, system_message, tools_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class _Talk:
    """ids: of the conversation so far, read and produced. messages: how many of its messages are in them. calls: tool calls so far.
    new: ids read for this turn. first: they are a whole prompt. tools: by which calls are read."""

    ids: list[int] = field(default_factory=list)
    messages: int = 0
    calls: int = 0
    new: Sequence[int] = ()
    first: bool = True
    tools: Sequence[Mapping[str, Any]] = ()


class CheckpointAgent:
    """Plays with `model` and `tokenizer`; `rows` conversations at once.

    prompt: what the system message carries (`tasks.worlds.api.system_prompt`). temperature: 0 is greedy; log-probabilities are
    then those at temperature 1. max_turn_tokens: produced ids of one turn; max_episode_tokens: ids of a conversation, read and produced
    (448 in our measurements keeps one babbling episode from padding all others), and never more than the model has positions. Reaching
    any ends the conversation with `max_tokens`. engine: opens the engine that generates, over the model. adapter: of the model's,
    the one that it plays with, "" for none; None: the active one. compare: is called with all ids before each turn and what the
    engine made, where another process holds the weights.
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
        engine: Callable[..., Engine],
        adapter: str | None = None,
        compare: Callable[[Sequence[int], Generated], None] | None = None,
    ) -> None:
        check_prompt(prompt)
        self.name, self.capacity = name, rows
        self._where = f"the checkpoint {name} plays"
        self._tokenizer, self._prompt, self._chat = tokenizer, prompt, chat_of(tokenizer)
        self._temperature, self._max_turn = temperature, max_turn_tokens
        self._adapter = active_adapter(model) if adapter is None else adapter
        self._stop = tuple(self._chat.end_ids(tokenizer))
        self._lower = (
            f"Of the step's params lower rows (now {rows} conversations at once), max_episode_tokens (now {max_episode_tokens}) or, "
            "where its engine has it, memory."
        )
        with memory.advised(self._where, self._lower):
            self._engine = engine(model, rows=rows, most=max_episode_tokens)
        self._counted = {"read": 0, "produced": 0}
        self._compare = compare if self._engine.elsewhere else None
        self._talks: dict[str, _Talk] = {}
        self._prompts: dict[str, tuple[str, list[dict[str, Any]], list[dict[str, Any]]]] = {}

    @property
    def counts(self) -> Mapping[str, int]:
        """The engine's: ids read and ids produced so far, and more."""
        return self._engine.counts

    def send(self, conversation: str, messages: Sequence[Message], world: World, seed: int) -> None:
        """Read what is new since the last turn. Raises RuntimeError when more than `rows` conversations are open."""
        talk = self._talks.setdefault(conversation, _Talk())
        system, tools, talk.tools = self._prompt_of(world)
        talk.first = not talk.messages or self._chat.form == BY_TURN
        rendered = self._chat.prompt_ids if talk.first else self._chat.suffix_ids
        talk.new = rendered(self._tokenizer, system, messages, tools)
        talk.messages = len(messages) + 1
        talk.ids = [*talk.new] if self._chat.form == BY_TURN else [*talk.ids, *talk.new]
        self._engine.submit(conversation, talk.ids, Sampling(seed, self._temperature, self._max_turn, self._stop, self._adapter))

    def resume(self, conversation: str, messages: Sequence[Message], turns: Sequence[Turn]) -> None:
        """Take up a conversation whose turns were this checkpoint's: their ids are read as they are (law 7), with the next turn's.

        Turns without ids were another's; then the next turn renders the whole conversation. Raises RuntimeError as `send` does.
        """
        if turns and turns[-1].ids:
            calls = sum(len(message.get("tool_calls") or ()) for message in messages)
            ids = [token for turn in turns for token in (*turn.prompt_ids, *turn.ids)]
            self._talks[conversation] = _Talk(ids, len(messages), calls)

    def poll(self) -> list[tuple[str, Turn]]:
        """Conversations without room for another turn first, then turns that are finished."""
        with memory.advised(self._where, self._lower):
            finished = self._engine.poll()
        turns = [(made.conversation, self._turn(made)) for made in finished]
        counts = self._engine.counts
        for kind, before in self._counted.items():
            TOKENS[kind] += counts[kind] - before
            self._counted[kind] = counts[kind]
        return turns

    def close(self, conversation: str) -> None:
        """Forget the conversation; its memory is free."""
        del self._talks[conversation]
        self._engine.close(conversation)

    def _prompt_of(self, world: World) -> tuple[str, list[dict[str, Any]], list[dict[str, Any]]]:
        """(the system message, the tools that the prompt carries, those by which calls are read)."""
        if world.name not in self._prompts:
            schemas = world.schemas() if self._chat.types_by_schema else []
            self._prompts[world.name] = (system_message(world, self._prompt), tools_of(world, self._prompt), schemas)
        return self._prompts[world.name]

    def _turn(self, made: Generated) -> Turn:
        if made.finish == "full":
            return Turn({"role": "assistant", "content": ""}, error="max_tokens")
        talk = self._talks[made.conversation]
        if self._compare:
            self._compare(talk.ids, made)
        talk.ids += made.ids
        message, error = parse_turn(self._chat, self._tokenizer, made.ids, talk.calls, talk.tools, self._chat.opens_thought)
        talk.calls += len(message.get("tool_calls") or ())
        return Turn(message, talk.new, made.ids, made.logprobs, error, talk.first)
