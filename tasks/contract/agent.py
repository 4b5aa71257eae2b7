"""Whatever acts in a conversation, and what it knows of the world it acts in. The rollout engine (`tasks.worlds.api.play`) drives every
kind through it.

A *player* is an agent that a model, a script or a rule stands behind (`tasks/players`); a *way of acting* (`tasks/agents`) is an agent
that asks a player as often as it likes before it acts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tasks.contract.client import Message
from tasks.contract.problem import Kind

if TYPE_CHECKING:
    from tasks.contract.conventions import Conventions


class Tool(Protocol):
    """A tool as an agent sees it."""

    @property
    def name(self) -> str:
        """By which it is called."""
        ...

    @property
    def kind(self) -> Kind:
        """Whether it reads, writes or ends the conversation."""
        ...

    @property
    def parameters(self) -> dict[str, Any]:
        """The JSON schema of its arguments, an object's."""
        ...


class World(Protocol):
    """A world as an agent sees it. policy: the whole text."""

    name: str
    policy: str

    @property
    def tools(self) -> Mapping[str, Tool]:
        """Its tools by name."""
        ...

    @property
    def conventions(self) -> Conventions:
        """What it declares: which tool hands over, and more."""
        ...

    def schemas(self) -> list[dict[str, Any]]:
        """The tools in the OpenAI shape."""
        ...


@dataclass(frozen=True)
class Turn:
    """One assistant turn. message: OpenAI-shaped, either tool calls or a reply. prompt_ids: ids the model read since its last
    turn; ids: ids it produced; logprobs: one per produced id (all empty for agents without tokens). error: "" or
    parse_error (a call that is not one), max_tokens, or why a server gave none (`tasks.contract.losses.GONE`). first: prompt_ids are a
    whole prompt, which follows none of this conversation's earlier tokens."""

    message: Message
    prompt_ids: Sequence[int] = ()
    ids: Sequence[int] = ()
    logprobs: Sequence[float] = ()
    error: str = ""
    first: bool = False


class Agent(Protocol):
    """Acts in many conversations at once. `capacity` is how many may be open together."""

    name: str
    capacity: int

    def send(self, conversation: str, messages: Sequence[Message], world: World, seed: int) -> None:
        """Hand over the conversation so far (no system message); the agent now owes one turn in it."""
        ...

    def resume(self, conversation: str, messages: Sequence[Message], turns: Sequence[Turn]) -> None:
        """Before the first `send` of a conversation that this agent has had a part in under another name (a fork, a second try).

        messages: the conversation up to and with its own last turn. turns: its own turns in it, in order.
        """
        ...

    def poll(self) -> list[tuple[str, Turn]]:
        """The turns that are ready, at least one when any is owed; their order is a function of what was sent alone."""
        ...

    def close(self, conversation: str) -> None:
        """The conversation is over; forget it."""
        ...
