"""The door to agents: whatever acts in a conversation. The rollout engine (`tasks.worlds.api.play`) drives every kind through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tasks.contract.client import Message

if TYPE_CHECKING:
    from tasks.worlds.api.runtime import World


@dataclass(frozen=True)
class Turn:
    """One assistant turn. message: OpenAI-shaped, either tool calls or a reply. prompt_ids: ids the model read since its last
    turn; ids: ids it produced; logprobs: one per produced id (all empty for agents without tokens). error: "" or
    parse_error (a call that is not one), max_tokens, or why a server gave none (`tasks.contract.losses.GONE`)."""

    message: Message
    prompt_ids: Sequence[int] = ()
    ids: Sequence[int] = ()
    logprobs: Sequence[float] = ()
    error: str = ""


class Agent(Protocol):
    """Acts in many conversations at once. `capacity` is how many may be open together."""

    name: str
    capacity: int

    def send(self, conversation: str, messages: Sequence[Message], world: World, seed: int) -> None:
        """Hand over the conversation so far (no system message); the agent now owes one turn in it."""
        ...

    def poll(self) -> list[tuple[str, Turn]]:
        """The turns that are ready, at least one when any is owed; their order is a function of what was sent alone."""
        ...

    def close(self, conversation: str) -> None:
        """The conversation is over; forget it."""
        ...
