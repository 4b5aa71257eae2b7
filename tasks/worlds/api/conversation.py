"""A conversation that can be gone back into: its messages, its world's state, and the seeds of its noise.

Forks share what they have in common: messages are the same objects, and a world's state copies a row only when it changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from tasks.contract.agent import Turn
from tasks.contract.client import Message
from tasks.contract.params import BadInput
from tasks.contract.trajectory import Trajectory

if TYPE_CHECKING:
    from tasks.worlds.api.runtime import World


@dataclass
class Conversation:
    """One conversation, at an end or not yet.

    key: its name in a game. played: what was said and called so far; its outcome once it has ended. human: the human's view (its system
    message, its own lines, the agent's replies). seeds: what all of its noise is named after. world: at the state that the calls left;
    None before it begins. states: the world's state before each turn of the agent's, where a game keeps them. with_ids: for each turn
    of the agent's, whether its ids stand in `played.turns`. forks: how many were made before each turn.
    """

    key: str
    played: Trajectory
    human: list[Message]
    seeds: tuple[object, ...]
    world: World | None = None
    steps: int = 0
    lines: int = 0
    states: list[Any] = field(default_factory=list)
    with_ids: list[bool] = field(default_factory=list)
    forks: dict[int, int] = field(default_factory=dict)

    @property
    def to_move(self) -> Literal["agent", "human"]:
        """Whose turn it is: the human's at the start and after a reply, else the agent's."""
        last = self.played.messages[-1] if self.played.messages else None
        return "human" if last is None or last["role"] == "assistant" else "agent"

    def own_turns(self) -> list[Turn]:
        """The agent's turns so far, with their ids (empty where the agent has none)."""
        said = [message for message in self.played.messages if message["role"] == "assistant"]
        kept = iter(self.played.turns)
        ids = [next(kept) if has else {} for has in self.with_ids]
        return [Turn(message, **turn) for message, turn in zip(said, ids, strict=True)]

    def hand_to(self, agent: str, human: str) -> None:
        """Who plays from here on. Tokens of another agent are dropped: they are no part of what the new one reads and says."""
        if self.played.agent != agent:
            self.played.turns, self.with_ids = [], [False] * self.steps
        self.played.agent, self.played.human = agent, human


def forked(source: Conversation, start: World, turn: int | None, again: Literal["agent", "human"]) -> Conversation:
    """The conversation as it was before the agent's turn `turn`; see `tasks.worlds.api.play.Game.fork`."""
    messages = source.played.messages
    places = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    at = len(places) if turn is None else turn
    if not 0 <= at <= len(places):
        raise ValueError(f"turn {turn}: the conversation about {source.played.problem.problem_id} has turns 0 to {len(places)}")
    cut = places[at] if at < len(places) else len(messages)
    state = _state(source, start, at, cut)
    if again == "human" and messages[:cut] and messages[cut - 1]["role"] != "assistant":
        if messages[cut - 1]["role"] != "user":
            raise ValueError(f"turn {turn}: before it a tool answered, so there is no line of the human's to say again")
        cut -= 1
    number = source.forks.get(at, 0)
    source.forks[at] = number + 1
    kept = list(messages[:cut])
    ids = source.with_ids[:at]
    played = replace(
        source.played,
        messages=kept,
        calls=source.played.calls[: sum(message["role"] == "tool" for message in kept)],
        turns=source.played.turns[: sum(ids)],
        stop="",
        outcome=None,
        branch="/".join(filter(None, (source.played.branch, f"{at}.{number}"))),
    )
    view = [_seen(message) for message in kept if _for_human(message)]
    seeds = (*source.seeds, "fork", at, number, again)
    lines = sum(message["role"] == "user" for message in kept)
    states = source.states[:at]
    return Conversation(f"{source.key}/{at}.{number}", played, [source.human[0], *view], seeds, state, at, lines, states, ids)


def _for_human(message: Message) -> bool:
    return message["role"] == "user" or (message["role"] == "assistant" and not message.get("tool_calls"))


def _seen(message: Message) -> Message:
    """A message as the human sees it: its own lines are the assistant's."""
    return {"role": "assistant" if message["role"] == "user" else "user", "content": message["content"]}


def _state(source: Conversation, start: World, at: int, cut: int) -> World:
    """A world of its own at the state before a turn: from the state that was kept, from the present one, or by making the calls again.
    BadInput where the world cannot be copied."""
    if not start.copies:
        raise BadInput(f"world {start.name}: its state cannot be copied, so no conversation can be gone back into (COPIES = False).")
    twin = start.fork()
    if at < len(source.states):
        twin.restore(source.states[at])
    elif source.world is not None and cut == len(source.played.messages):
        twin.restore(source.world.snapshot())
    else:
        tools = sum(message["role"] == "tool" for message in source.played.messages[:cut])
        _again(twin, source.played.calls[:tools])
    return twin


def _again(world: World, calls: Sequence[Any]) -> None:
    for action, before in calls:
        if not before.ok:  # it changed nothing
            continue
        now = world.call(action.name, action.arguments)
        if (now.ok, now.content) != (before.ok, before.content):
            raise BadInput(
                f"world {world.name}: its state cannot be copied: {action.name} answered {now.content[:80]!r} when called again, "
                f"{before.content[:80]!r} before. Conversations can be gone back into where the same calls give the same answers."
            )
