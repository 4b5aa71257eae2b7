"""What a method is given besides its inputs and params: seeds, folders, roles, a log. Nothing else.

A method reads no YAML, no environment and no clock, and uses no global generator; all of that arrives here.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from tasks.contract.agent import Agent
    from tasks.contract.client import Client

Item = TypeVar("Item")
Result = TypeVar("Result")


def seed_of(*names: object) -> int:
    """A 63-bit seed from any names: the same names give the same seed on every machine and in every process."""
    text = "\x1f".join(str(name) for name in names)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def in_order(name: str, work: Callable[[Sequence[Item]], Result], items: Sequence[Item], shard_size: int) -> Iterator[Result]:
    """The plain way to process items in shards: one after another, nothing kept. Tests and scripts use it."""
    for start in range(0, len(items), shard_size):
        yield work(items[start : start + shard_size])


def _quiet(*_: object) -> None:
    """A log or a progress bar that nobody watches."""


def _no_roles(name: str, world: str = "") -> Client:
    raise LookupError(f"this method asked for the model role {name!r}, but it was run without roles")


def _no_agents(world: str = "", **_: Any) -> Agent:
    raise LookupError(f"this method asked for an agent in {world or 'a world'}, but its room's interface does not say PLAYS")


@dataclass(frozen=True)
class Losses:
    """How much may be lost for one reason before a stage stops with that reason, instead of leaving a small or empty result.

    share: of a role's calls, or of a stage's conversations, in (0, 1]. least: so many must be lost for it; 0 never stops.
    unanswered: share of a role's calls that may stay without an answer after all attempts, in [0, 1]; each loses what it was for.
    """

    share: float = 0.9
    least: int = 50
    unanswered: float = 0.01

    def too_many(self, lost: Mapping[str, int], total: int) -> str:
        """The reason for which nearly all of `total` was lost, or an empty string. lost: reason -> how many."""
        reason = max(lost, key=lambda name: (lost[name], name), default="")
        if not reason or not self.least or lost[reason] < max(self.least, self.share * total):
            return ""
        return reason


@dataclass(frozen=True)
class AsServed:
    """A checkpoint as whoever serves it offers it.

    problems: of each world to be played so, at least 1. exact: with the same seeds in float32 it produces the same tokens as the
    checkpoints of the step do; else alike within what half precision, another engine or a GPU changes. agent: agent(folder, name=,
    temperature=, max_turn_tokens=, max_episode_tokens=, dtype=) gives a block in which there is whoever acts with a checkpoint.
    """

    problems: int
    exact: bool
    agent: Callable[..., AbstractContextManager[Agent]]


@dataclass(frozen=True)
class Context:
    """The surroundings of one run of one method.

    out:      empty folder; what the method leaves in it *is* the artifact (no clocks, host names or run ids in it).
    scratch:  folder that survives a kill and is seen again by the next attempt at the same key; resume state lives here.
    log:      log(name, value, step), a curve for the tracker.
    progress: progress(done, total, note), for people.
    shards:   shards(name, work, items, shard_size) yields work(shard) in order. A shard is the unit of caching, retry and
              distribution: results of finished shards are found again after a kill. `work` returns something JSON-able.
    prompt:   how much the agent's system prompt carries: tools (full, names, none) and policy (full, none).
    role:     role(name, world) gives the client that plays a model's role (generator, judge, human, agent, critic ...). Where several
              models play one in turn, "judge/2" is the second; LookupError when there is none. See `panel`.
    agent:    agent(world, name=, role=, checkpoint=, ...) gives whoever acts in a world, in the way that the step's params choose
              (`tasks.players.acting.acting`): the player of a role (by default "agent"), or a checkpoint that the room has at hand.
    artifacts: identity -> folder of every artifact that the stage read: by these an adapter finds its base, and names it.
    losses:   how much may be lost for one reason before the method stops.
    as_served: a checkpoint as it is served, for a room whose interface says AS_SERVED; None where nothing is to be played so.
    """

    seed: int
    out: Path
    scratch: Path
    device: str = "cpu"
    threads: int = 1
    log: Callable[[str, float, int], None] = _quiet
    progress: Callable[[int, int, str], None] = _quiet
    shards: Callable[..., Iterator[Any]] = in_order
    role: Callable[..., Client] = _no_roles
    agent: Callable[..., Agent] = _no_agents
    prompt: Mapping[str, str] = field(default_factory=lambda: {"tools": "none", "policy": "none"})
    losses: Losses = Losses()
    artifacts: Mapping[str, Path] = field(default_factory=dict)
    as_served: AsServed | None = None

    def human(self, world: str) -> Client:
        """Whoever plays the human in a world."""
        return self.role("human", world)

    def panel(self, name: str, world: str = "") -> list[Client]:
        """The clients of a role that several models may play in turn (`others` in its configuration); one, for most."""
        members = [self.role(name, world)]
        while True:
            try:
                members.append(self.role(f"{name}/{len(members) + 1}", world))
            except LookupError:
                return members

    def seed_for(self, *names: object) -> int:
        """A seed for something named: independent of the order in which things are done."""
        return seed_of(self.seed, *names)

    def rng(self, *names: object) -> random.Random:
        """A generator for something named; two calls with the same names give the same stream."""
        return random.Random(self.seed_for(*names))
