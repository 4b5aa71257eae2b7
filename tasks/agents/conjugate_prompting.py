"""Conjugate prompting: the player is told everything in other words, and what it answers is said back before anything is done.

Paper: Understanding Catastrophic Forgetting in Language Models via Implicit Inference, https://arxiv.org/abs/2309.10105. Fine-tuning
shifts which task a model takes a prompt for, most where a prompt looks like what it was fine-tuned on. A prompt in other words looks
less so; where skill comes back in it, it was suppressed and not lost, and this way of acting is all that is needed to use it. Which
tasks these are, `evaluate.conjugated_rows` measures.

The other words are a declared dictionary (`tasks.contract.conjugation`), such as symbols of another alphabet, or other names of tools
and arguments. Messages, calls, tools' answers, policy and tools go to the player in them; its reply and its calls are said back before
anything is done, so the world, the human and what is kept of the conversation have their own words.

Departures:
1. The paper translates sentences into other languages; here word by word, so that nothing is lost on the way back.
2. One map for all conversations of a step; the paper chooses by task on validation data. Choose one by `evaluate.conjugated_rows`.
3. Tokens of a turn (`Turn.ids`) are what the player read and produced, in the other words; methods that train on tokens train on those.
4. Words of the player's own frame around policy and tools (its chat template, its system line) stay.

Cost: one answer of the player a turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field

from tasks.contract import params as base
from tasks.contract.agent import Agent, Tool, Turn, World
from tasks.contract.client import Message
from tasks.contract.conjugation import Conjugation, Say, message_said, schema_said, tool_said
from tasks.contract.conventions import Conventions
from tasks.contract.params import BadInput
from tasks.contract.problem import Kind

TITLE = "Conjugate prompting"
PAPER = "https://arxiv.org/abs/2309.10105"
SLUG = "conjugate_prompting"


class Params(base.Params):
    """The other words."""

    words: dict[str, str] = Field({}, description="word -> what stands for it; what is not said the other way round follows from it")


def check(params: Params, where: str) -> None:
    """Raise BadInput for a dictionary that changes nothing or cannot be taken back."""
    try:
        Conjugation.of(params.words)
    except BadInput as mistake:
        raise BadInput(f"{where}.words: {mistake}") from None


@dataclass(frozen=True)
class OtherTool:
    """A tool as the player sees it (`tasks.contract.agent.Tool`)."""

    name: str
    kind: Kind
    parameters: dict[str, Any]


class OtherWorld:
    """A world as the player sees it (`tasks.contract.agent.World`), all of it said by `say`."""

    def __init__(self, world: World, say: Say) -> None:
        self.name, self.policy = say(world.name), say(world.policy)
        self.conventions = conventions_said(world.conventions, say)
        self.tools: Mapping[str, Tool] = {
            say(name): OtherTool(say(name), tool.kind, schema_said(tool.parameters, say)) for name, tool in world.tools.items()
        }
        self._schemas = [tool_said(one, say) for one in world.schemas()]

    def schemas(self) -> list[dict[str, Any]]:
        """The tools in the OpenAI shape."""
        return self._schemas


def conventions_said(conventions: Conventions, say: Say) -> Conventions:
    """Conventions with their tools and fields said by `say`. A function that confirms writes judges real calls, and stays."""
    some: dict[str, Any] = {
        key: tuple(map(say, found)) for key in ("look_ups", "confirmed") if (found := getattr(conventions, key)) is not None
    }
    return replace(
        conventions,
        identified_by=tuple(
            replace(one, tool=say(one.tool), fields=tuple(map(say, one.fields)), answer=say(one.answer))
            for one in conventions.identified_by
        ),
        open_tools=tuple(map(say, conventions.open_tools)),
        owner=say(conventions.owner),
        hand_over=say(conventions.hand_over),
        **some,
    )


class Conjugated:
    """Asks the player in other words. A conversation has the same name with the player, and its turns are the player's own."""

    def __init__(self, player: Agent, conjugation: Conjugation) -> None:
        self.name, self.capacity = player.name, player.capacity
        self._player, self._there, self._back = player, conjugation.there, conjugation.inverse.there
        self._worlds: dict[str, OtherWorld] = {}

    def send(self, conversation: str, messages: Sequence[Message], world: World, seed: int) -> None:
        """Hand the conversation over in the other words."""
        if world.name not in self._worlds:
            self._worlds[world.name] = OtherWorld(world, self._there)
        told = [message_said(message, self._there) for message in messages]
        self._player.send(conversation, told, self._worlds[world.name], seed)

    def resume(self, conversation: str, messages: Sequence[Message], turns: Sequence[Turn]) -> None:
        """Messages and turns in the other words; the turns' tokens are in them already."""
        told = [message_said(message, self._there) for message in messages]
        own = [replace(turn, message=message_said(turn.message, self._there)) for turn in turns]
        self._player.resume(conversation, told, own)

    def poll(self) -> list[tuple[str, Turn]]:
        """The player's turns, said back: calls name the world's own tools and rows."""
        return [(key, replace(turn, message=message_said(turn.message, self._back))) for key, turn in self._player.poll()]

    def close(self, conversation: str) -> None:
        """Forget the conversation."""
        self._player.close(conversation)


def agent(player: Agent, params: Params) -> Conjugated:
    """The player, asked in the words of params. BadInput as `check`."""
    return Conjugated(player, Conjugation.of(params.words))
