"""The exact optimum of the environment `grid`: steps to the goal, or the best return where moves slip, from every state that matters.

What matters to an option is where the player is, how far it is with the door, and where the things are that the option speaks of; what
else is held or lies about changes nothing, since taking a thing puts down what is held. A table over all such states is filled from the
goal backwards until nothing changes, so it is exact, and holds for the whole episode whatever is done in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.environments.grid_goals import AT, BEEN, HOLD, NEAR, PAIRS, TRUE
from tasks.environments.grid_starts import STAY

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

FAR = 10_000
"""Steps to a goal that cannot be reached: more than any way is long."""
SLIP = 0.2
"""Share of slippery moves that go in a random direction: AutoEnv's."""


@dataclass(frozen=True)
class Board:
    """What of an episode stays as it is, on c cells. move: (c, 5). near: (c, c) bool. door, key: cells or -1. ends_here: (c,) bool, the
    cells that end the episode."""

    move: Array
    near: Array
    door: int
    key: int
    ends_here: Array

    @property
    def doors(self) -> int:
        """How far one can be with the door: 3 (no key, the key, open), or 1 where there is none."""
        return 3 if self.door >= 0 else 1

    def open_to(self, far: int) -> Array:
        """(c, 4): where steps lead when one is so far with the door."""
        onward = self.move[:, :STAY]
        if self.door < 0 or far == 2:
            return onward
        return np.where(onward == self.door, np.arange(len(onward))[:, None], onward)


@dataclass(frozen=True)
class Option:
    """An option of a goal: its two literals, the things that it speaks of, and whether carrying them can be of use.

    Where it can, the axes of a table are (cell, door, where each thing is), the last place of a thing being the hand; where not, they
    are (cell, door, been there or not for each thing), and `lie` says where the things are.
    """

    facts: tuple[int, ...]
    negated: tuple[bool, ...]
    things: tuple[int, ...]
    moves: bool
    lie: tuple[int, ...] = ()


def _holding(board: Board, option: Option) -> Array:
    """In which states an option holds."""
    cells = len(board.move)
    places = cells + 1 if option.moves else 2
    shape = (cells, board.doors, *[places] * len(option.things))
    axes = np.ogrid[tuple(slice(size) for size in shape)]
    agent, of = axes[0], dict(zip(option.things, axes[2:], strict=True))
    found = np.ones(shape, dtype=bool)
    for fact, no in zip(option.facts, option.negated, strict=True):
        found &= _fact(board, option, fact, agent, of) ^ no
    found[board.ends_here] = False
    return found


def _fact(board: Board, option: Option, fact: int, agent: Array, of: dict[int, Array]) -> Array:
    """A fact in all states: agent, and what there is to know of things, are axes of a table."""
    hand = len(board.move)
    if fact == TRUE:
        return np.array(True)
    if fact >= NEAR:
        lie, pair = divmod(fact - NEAR, len(PAIRS))
        places = [of[one] for one in PAIRS[pair]]
        first, second = (np.where(one == hand, agent, one) for one in places)
        found = board.near[first, second]
        return found & (places[0] != hand) & (places[1] != hand) if lie else found
    if fact >= BEEN:
        return of[fact - BEEN] == 1
    if fact >= AT:
        return (of[fact - AT] == agent) | (of[fact - AT] == hand)
    return of[fact - HOLD] == hand


def _arrived(option: Option, after: Array) -> Array:
    """What a state is worth on arrival, where arriving at a thing counts as having been there."""
    if option.moves:
        return after
    found = after.copy()
    for axis, place in enumerate(option.lie, start=1):
        by_visit = np.moveaxis(found[place], axis, 0)
        by_visit[0] = by_visit[1]
    return found


def _one_step(board: Board, option: Option, after: Array, better: np.ufunc, slip: float) -> Array:
    """What each state is worth when one more action is taken, the best: after is what the states are worth that it leads to."""
    found, arrived = after.copy(), _arrived(option, after)
    for far in range(board.doors):
        onward = board.open_to(far)
        ends = [arrived[onward[:, direction], far] for direction in range(STAY)]
        if slip:
            mean = sum(ends) / STAY
            ends = [(1 - slip) * end + slip * mean for end in ends]
        for end in ends:
            better(found[:, far], end, out=found[:, far])
    if board.doors > 1:
        found[board.key, 0] = better(found[board.key, 0], after[board.key, 1])
        before = np.flatnonzero(board.near[board.door] & (np.arange(len(board.move)) != board.door))
        found[before, 1] = better(found[before, 1], after[before, 2])
    if option.moves:
        for axis in range(2, 2 + len(option.things)):
            _carried(np.moveaxis(found, axis, 1), np.moveaxis(after, axis, 1), better)
    return found


def _carried(found: Array, after: Array, better: np.ufunc) -> None:
    """Taking and putting down one thing, whose place is the second axis, before that of the door and the other thing's."""
    cells = np.arange(len(found))
    hand = len(found)
    taken = after[:, hand].copy()
    if taken.ndim > 2:  # the other thing was held: now it lies here
        taken[:, :, hand] = after[cells, hand, :, cells]
    found[cells, cells] = better(found[cells, cells], taken)
    found[:, hand] = better(found[:, hand], after[cells, cells])


def steps_to(board: Board, option: Option) -> Array:
    """Steps to an option from every state; FAR where it cannot be reached."""
    found = np.where(_holding(board, option), 0, FAR).astype(np.int16)
    while True:
        nearer = np.minimum(found, _one_step(board, option, found + np.int16(1), np.minimum, 0.0))
        nearer[board.ends_here] = FAR
        if (nearer == found).all():
            return found
        found = nearer


def returns(board: Board, option: Option, limit: int, again: bool) -> list[Array]:
    """The best expected return from every state with 0, 1, .. limit steps left, when moves slip.

    1 for each step after which the option holds, and on; or, unless `again`, for the first, which ends the episode. -1 for a cell that
    ends it.
    """
    holding = _holding(board, option)
    found = [np.zeros(holding.shape)]
    for _ in range(limit):
        after = np.where(holding, 1.0 + (found[-1] if again else 0.0), found[-1])
        after[board.ends_here] = -1.0
        found.append(_one_step(board, option, after, np.maximum, SLIP))
    return found
