"""Episodes of an environment: seeds of a split and of some families, episodes played to their ends, and which of them were won."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.contract.context import seed_of
from tasks.contract.params import BadInput, nearest
from tasks.contract.problem import Split
from tasks.environments import NO_ACTION, Environment

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]
    Act = Callable[[Environment], Array]

TRIES = 10_000
"""Seeds looked at for each that is wanted, before families of a split count as empty; ours."""
EQUAL = 1e-9
"""Sums of rewards that differ by less are the same; ours."""


@dataclass(frozen=True)
class Episodes:
    """n episodes to their ends. turns: of each (told, reply) by steps. total: (n,) float64, the sum of its rewards. subgoals: (n,)
    int64, how many it reached."""

    turns: list[list[tuple[str, str]]]
    total: Array
    subgoals: Array


def seeds(environment: Environment, split: Split, families: Sequence[str] = (), *names: object) -> Iterator[int]:
    """Different seeds of a split, of these families or without any of all, without end; the same names give the same ones.

    BadInput for a family that there is not, and where TRIES seeds in a row are not of them.
    """
    for family in families:
        if family not in environment.families:
            raise BadInput(
                f"environment {environment.name}: there is no family {family!r}.{nearest(family, environment.families)} "
                f"Known: {', '.join(environment.families)}."
            )
    wanted, seed, missed = frozenset(families), seed_of("episodes", split, *names) >> 1, 0
    while True:
        if (not wanted or environment.family(seed) in wanted) and environment.split(seed) == split:
            missed = 0
            yield seed
        missed += 1
        if missed > TRIES:
            raise BadInput(
                f"environment {environment.name}: none of {TRIES:,} episodes is of split {split} and of "
                f"{', '.join(families) or 'any family'}. Its params leave too few different starts."
            )
        seed += 1


def play(environment: Environment, chosen: Sequence[int], act: Act) -> Episodes:
    """Play the episodes of these seeds; act(environment) gives the actions (n,) of a step."""
    environment.reset(chosen)
    running = np.ones(len(chosen), dtype=bool)
    turns: list[list[tuple[str, str]]] = [[] for _ in chosen]
    total, subgoals = np.zeros(len(chosen)), np.zeros(len(chosen), dtype=np.int64)
    for _ in range(environment.limit):
        told, actions = environment.tell(), np.where(running, act(environment), NO_ACTION)
        written = environment.replies(np.where(running, actions, 0))
        for place in np.flatnonzero(running).tolist():
            turns[place].append((told[place], written[place]))
        steps = environment.step(actions)
        total += steps.reward
        subgoals += steps.subgoals
        running &= ~(steps.terminal | steps.truncated)
        if not running.any():
            break
    return Episodes(turns, total, subgoals)


def by_oracle(environment: Environment) -> Array:
    """What the oracle does now, for `play`."""
    return environment.oracle()


def best(environment: Environment, chosen: Sequence[int]) -> Array:
    """(n,) float64: the most that can be had in the episodes of these seeds. Raises NoOracle where nobody can compute it."""
    return play(environment, chosen, by_oracle).total


def won(environment: Environment, chosen: Sequence[int], total: Array) -> Array:
    """(n,) bool: whether sums of rewards are the most that can be had. Raises NoOracle where nobody can compute that."""
    found: Array = total >= best(environment, chosen) - EQUAL
    return found


def solved(brought: float, best: float | None) -> bool:
    """Whether an episode that brought so much was won: it is the most that can be had, or where nobody knows the most, above 0."""
    return brought > 0 if best is None else brought >= best - EQUAL


def first(count: int, found: Iterator[int]) -> list[int]:
    """The first `count` seeds."""
    return list(islice(found, count))
