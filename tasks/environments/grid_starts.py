"""Starts of the environment `grid`: rooms, what lies in them and a goal, drawn for many episodes at once from their seeds alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from tasks.contract.params import BadInput
from tasks.contract.params import Params as Base
from tasks.environments import grid_goals as goals
from tasks.environments.draws import ALL, below, happens, number, numbers
from tasks.environments.grid_goals import ALREADY, COLOURS, FORMS, KEY, NEVER, OPEN, TRUE

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

ENVIRONMENT = "grid"
FLOOR, WALL, SHUT_DOOR, OPEN_DOOR, KEY_LIES, THING = range(6)
TRAP, PRIZE, ARROW = THING + len(COLOURS), THING + len(COLOURS) + 1, THING + len(COLOURS) + 2
"""What a cell of a board shows; ARROW + direction for an arrow."""
STEPS = ((-1, 0), (1, 0), (0, -1), (0, 1))
"""(rows, columns) of the directions north, south, west, east."""
STAY = len(STEPS)
OPPOSITE = (1, 0, 3, 2)
ARROWS, GOALS, DRAWN = 4, 12, 24
"""Of the numbers that a start is drawn from, the first are for doorways, then follow those for arrows, for the goal, and one a cell."""
TRIES = 1000
"""Starts drawn of one seed at most, until one is sound."""


class Params(Base):
    """Rooms, what lies in them, the goal, and the three rules that vary: how moves work, what is rewarded, what is seen."""

    size: int = Field(7, ge=3, le=7, description="cells of a side of the square; ours")
    rooms: Literal[1, 2, 4] = Field(1, description="1: no walls inside; 2, 4: walls in the middle with doorways; ours")
    locked: bool = Field(
        False, description="with two rooms: the doorway is a locked door, its key lies on the player's side, all things behind it"
    )
    walls: int = Field(0, ge=0, le=12, description="further cells that are walls; all others stay within reach of each other; ours")
    things: int = Field(4, ge=1, le=len(COLOURS), description="things that lie about; ours")
    goals: tuple[Literal["reach", "fetch", "bring", "carry", "leave", "tour"], ...] = Field(
        ("fetch",),
        min_length=1,
        description="kinds of goals, drawn evenly: "
        + "; ".join(f"{name}: {what}" for name, what in FORMS.items() if name not in (NEVER, ALREADY)),
    )
    options: int = Field(1, ge=1, le=4, description="ways to fulfil a goal, different things of one kind, of which one is enough; ours")
    useless: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of goals from which nothing can be learned: 2 of 3 contradict themselves, 1 of 3 holds at the start",
    )
    limit: int = Field(24, ge=1, le=200, description="steps of an episode at most; ours")
    moves: Literal["plain", "slippery", "mirrored", "wrapped", "arrows"] = Field(
        "plain",
        description="plain: as they are called; slippery: one of five moves goes in a random direction; mirrored: each in the opposite "
        "one; wrapped: an edge leads to the opposite edge; arrows: some cells can only be left as their arrow says",
    )
    reward: Literal["reach", "parts", "while", "avoid", "decoy"] = Field(
        "reach",
        description="reach: 1 when the goal first holds, which ends the episode; parts: the same in equal parts for the subgoals; "
        "while: 1 for every step after which it holds; avoid: as reach, and -1 for a trap, which ends the episode; decoy: as avoid, "
        "with one trap, which looks like a prize",
    )
    sight: Literal["whole", "near", "late"] = Field(
        "whole", description="whole: all that there is; near: what is at most two rows and columns away; late: as it was a step before"
    )
    skin: int = Field(
        0, ge=0, description="how things look: 0 as they are called in goals; others exchange their looks, for good; ours"
    )
    held_out: Literal["start", "goal"] = Field("start", description="what no two splits share: whole starts, or goals; ours")

    @property
    def traps(self) -> int:
        """Cells that end an episode."""
        return {"avoid": 3, "decoy": 1}.get(self.reward, 0)

    @property
    def arrows(self) -> int:
        """Cells with an arrow: one of seven (ours)."""
        return self.size**2 // 7 if self.moves == "arrows" else 0

    @property
    def families(self) -> tuple[str, ...]:
        """Kinds of goals that are drawn."""
        return (*dict.fromkeys(self.goals), *((NEVER, ALREADY) if self.useless else ()))


@dataclass(frozen=True)
class Starts:
    """n starts on c cells with k things. All arrays are (n, ...) and never written to.

    move: (n, c, 5), where a step in each direction leads, the last is staying; a door counts as open. board: (n, c), what lies fast.
    agent, key, door: (n,) cells; -1 where there is none. things: (n, k) cells. doorways: (n, d) cells. family: (n,) numbers of
    `Params.families`. goal, negated: (n, options, 2) literals. speaks_of: (n, options, 2) things, -1 for none. parts: (n, p) facts that
    are subgoals, TRUE for none: of the door, of the only option.
    """

    move: Array
    board: Array
    agent: Array
    things: Array
    key: Array
    door: Array
    doorways: Array
    family: Array
    goal: Array
    negated: Array
    speaks_of: Array
    parts: Array

    def take(self, rows: Array) -> Starts:
        """Some of the starts, or all in another order."""
        return Starts(*(getattr(self, one.name)[rows] for one in fields(self)))

    @cached_property
    def ends_here(self) -> Array:
        """(n, c) bool: the cells that end an episode."""
        return (self.board == TRAP) | (self.board == PRIZE)

    @cached_property
    def wide_board(self) -> Array:
        """(n, c + 2) int16: the board, and two columns that whoever looks at it may use."""
        return np.pad(self.board, ((0, 0), (0, 2))).astype(np.int16)

    @cached_property
    def literals(self) -> Array:
        """(n, 4 options) int16: of each literal its fact and whether it is negated."""
        return np.stack([self.goal, self.negated], -1).reshape(len(self.goal), -1).astype(np.int16)

    @cached_property
    def parts_count(self) -> Array:
        """(n,) how many subgoals there are."""
        return self.counts.sum(1)

    @cached_property
    def counts(self) -> Array:
        """(n, p + 1) bool: which parts are subgoals, and last whether the goal is one of its own (of a tour its parts are all)."""
        its_parts_are_all = (self.parts[:, 2:] == self.goal[:, 0]).all(1)
        return np.column_stack([self.parts != TRUE, ~its_parts_are_all])


@dataclass(frozen=True)
class Plan:
    """What all starts of the same params have in common, on c cells.

    beside: (c, 4), the cell in each direction, itself at an edge. near: (c, c) bool, at most one step apart. inner: the walls between
    rooms. segments: cells of which one is a doorway, for each doorway.
    """

    params: Params
    beside: Array
    near: Array
    inner: Array
    segments: tuple[tuple[int, ...], ...]


@lru_cache(maxsize=64)
def plan(params: Params) -> Plan:
    """What the params fix. BadInput for params that allow no start."""
    size, middle = params.size, params.size // 2
    rows, columns = np.divmod(np.arange(size**2), size)
    beside = np.stack([_beside(rows + down, columns + right, size, params.moves == "wrapped") for down, right in STEPS], 1)
    near = np.eye(size**2, dtype=bool)
    near[np.arange(size**2)[:, None], beside] = True
    sides = [range(middle), range(middle + 1, size)]
    columns_apart, rows_apart = params.rooms > 1, params.rooms > 2
    inner = (columns_apart & (columns == middle)) | (rows_apart & (rows == middle))
    segments: list[tuple[int, ...]] = []
    if params.rooms == 2:
        segments = [tuple(row * size + middle for row in range(size))]
    elif rows_apart:
        segments = [tuple(row * size + middle for row in side) for side in sides] + [
            tuple(middle * size + column for column in side) for side in sides
        ]
    _check(params, inner)
    return Plan(params, beside, near, inner, tuple(segments))


def _beside(rows: Array, columns: Array, size: int, wrapped: bool) -> Array:
    """Cells at (rows, columns), brought back into the square."""
    rows, columns = (one % size if wrapped else one.clip(0, size - 1) for one in (rows, columns))
    return rows * size + columns


def _check(params: Params, inner: Array) -> None:
    if params.locked and params.rooms != 2:
        raise BadInput(f"environment {ENVIRONMENT}: locked needs rooms: 2, and rooms is {params.rooms}")
    if params.moves == "wrapped" and params.rooms != 1:
        raise BadInput(
            f"environment {ENVIRONMENT}: moves that wrap around lead past the walls between rooms. Take rooms: 1, not {params.rooms}."
        )
    for name in params.families:
        if (found := len(goals.form(name, params.things).facts)) < params.options:
            raise BadInput(
                f"environment {ENVIRONMENT}: {params.things} things allow {found} options of a goal {name!r}; options = "
                f"{params.options}. Use more things or fewer options."
            )
    size, fast = params.size, params.walls + params.traps + params.arrows
    sides = [size * (size // 2), size * (size - size // 2 - 1)] if params.locked else [int((~inner).sum())]
    needed = [2, params.things] if params.locked else [1 + params.things]
    if min(have - need for have, need in zip(sides, needed, strict=True)) < fast:
        raise BadInput(
            f"environment {ENVIRONMENT}: a square of {size} x {size} has no room for all that lies in it. Use fewer walls or things, "
            "or a larger size."
        )


def draw(params: Params, seeds: Sequence[int]) -> Starts:
    """The starts of seeds. A start is drawn anew until its goal is open and all cells can be reached from each other. BadInput: none
    was found."""
    layout, family = plan(params), families(params, seeds)
    waiting: Array = np.arange(len(seeds))
    done, order = [], []
    for attempt in range(TRIES):
        made = _draw(
            layout,
            family[waiting],
            numbers([seeds[one] for one in waiting.tolist()], DRAWN + params.size**2, ENVIRONMENT, "start", attempt),
        )
        sound = _sound(layout, made)
        done.append(made.take(sound))
        order.append(waiting[sound])
        waiting = waiting[~sound]
        if not len(waiting):
            break
    else:
        raise BadInput(
            f"environment {ENVIRONMENT}: none of {TRIES} starts drawn for seed {seeds[int(waiting[0])]} is sound. Use fewer walls."
        )
    if len(done) == 1:
        return done[0]
    back = np.argsort(np.concatenate(order))
    return Starts(*(np.concatenate([getattr(one, each.name) for one in done])[back] for each in fields(Starts)))


def families(params: Params, seeds: Sequence[int]) -> Array:
    """(n,) numbers of `Params.families`."""
    drawn = numbers(seeds, 2, ENVIRONMENT, "family")
    return _family(params, drawn[:, 0], drawn[:, 1])


def family(params: Params, seed: int) -> str:
    """The family of one seed."""
    both = (np.array([number(seed, place, ENVIRONMENT, "family")], dtype=np.uint64) for place in range(2))
    return params.families[int(_family(params, *both)[0])]


def _family(params: Params, first: Array, second: Array) -> Array:
    kinds = len(dict.fromkeys(params.goals))
    useless = happens(first, params.useless)
    return np.where(useless, kinds + (below(second, 3) == 2), below(second, kinds))


def _draw(layout: Plan, family: Array, drawn: Array) -> Starts:
    """Starts as they come, sound or not. drawn: (n, DRAWN + cells) numbers."""
    params, n = layout.params, len(family)
    rows, wall = np.arange(n)[:, None], np.repeat(layout.inner[None], n, 0)
    doorways = np.zeros((n, len(layout.segments)), dtype=np.int64)
    for place, segment in enumerate(layout.segments):
        doorways[:, place] = np.array(segment)[below(drawn[:, place], len(segment))]
    keys = np.where(wall, np.uint64(ALL), drawn[:, DRAWN:] >> np.uint64(1))  # nothing lies in a wall or in a doorway
    order = np.argsort(keys, 1, kind="stable")
    wall[rows, doorways] = False
    at = np.cumsum([params.walls, params.traps, params.arrows])
    board = np.where(wall, WALL, FLOOR)
    board[rows, order[:, : at[0]]] = WALL
    board[rows, order[:, at[0] : at[1]]] = PRIZE if params.reward == "decoy" else TRAP
    board[rows, order[:, at[1] : at[2]]] = ARROW + below(drawn[:, ARROWS : ARROWS + params.arrows], len(STEPS))
    agent, key, things = _lying(params, order[:, at[2] :])
    door = doorways[:, 0] if params.locked else np.full(n, -1)
    goal, negated, speaks_of, parts = _goals(params, family, drawn[:, GOALS:DRAWN])
    return Starts(_moves(layout, board), board, agent, things, key, door, doorways, family, goal, negated, speaks_of, parts)


def _lying(params: Params, order: Array) -> tuple[Array, Array, Array]:
    """(agent, key, things): the first cells of an order; with a locked door, of those on the side of each."""
    n = len(order)
    if not params.locked:
        return order[:, 0], np.full(n, -1), order[:, 1 : 1 + params.things]
    column, middle = order % params.size, params.size // 2
    here, there = (np.take_along_axis(order, np.argsort(~side, 1, kind="stable"), 1) for side in (column < middle, column > middle))
    return here[:, 0], here[:, 1], there[:, : params.things]


def _goals(params: Params, family: Array, drawn: Array) -> tuple[Array, Array, Array, Array]:
    """(goal, negated, speaks_of, parts) of each start. drawn: (n, 12), by which options are chosen."""
    n, options = len(family), params.options
    goal, speaks_of = np.zeros((n, options, 2), dtype=np.int64), np.zeros((n, options, 2), dtype=np.int64)
    negated, parts = np.zeros((n, options, 2), dtype=bool), np.full((n, 4), TRUE)
    for place, name in enumerate(params.families):
        rows = np.flatnonzero(family == place)
        if not len(rows):
            continue
        form = goals.form(name, params.things)
        chosen = np.sort(np.argsort(drawn[rows, : len(form.facts)], 1)[:, :options], 1)
        goal[rows], negated[rows], speaks_of[rows] = form.facts[chosen], form.negated[chosen], form.things[chosen]
        if options == 1:
            parts[rows, 2:] = form.parts[chosen[:, 0]]
        if params.locked and name not in (NEVER, ALREADY):
            parts[rows, :2] = KEY, OPEN
    return goal, negated, speaks_of, parts


def _moves(layout: Plan, board: Array) -> Array:
    """(n, c, 5): where steps lead."""
    params, (n, cells) = layout.params, board.shape
    beside = layout.beside[:, OPPOSITE] if params.moves == "mirrored" else layout.beside
    here = np.arange(cells)
    leads = np.where((board != WALL)[:, beside], beside, here[:, None])
    if params.moves == "arrows":
        directions = np.arange(len(STEPS))
        held_back = (board[:, :, None] >= ARROW) & (board[:, :, None] - ARROW != directions)
        leads = np.where(held_back, here[:, None], leads)
    return np.concatenate([leads, np.broadcast_to(here[:, None], (n, cells, 1))], 2)


def _sound(layout: Plan, made: Starts) -> Array:
    """(n,) bool: the goal does not hold, unless it is to, and every cell is within reach of every other."""
    n = len(made.agent)
    facts = goals.facts_of(made.agent, made.things, np.full(n, -1), np.zeros(made.things.shape, dtype=bool), layout.near)
    names = layout.params.families
    already = made.family == (names.index(ALREADY) if ALREADY in names else -1)
    sound = goals.holds(facts, made.goal, made.negated) == already
    params = layout.params
    if params.walls or params.traps or params.arrows:
        sound &= _connected(layout, made)
    return sound


def _connected(layout: Plan, made: Starts) -> Array:
    """(n,) bool: each cell that is no wall and no trap can be reached from the agent's, and the agent's from each."""
    rows, cells = np.arange(len(made.agent))[:, None, None], np.arange(layout.params.size**2)
    passable = (made.board != WALL) & ~made.ends_here
    onward = made.move[..., :STAY]
    # The cells from which a step leads to a cell lie beside it; whether one does is what its own moves say.
    comes_from = layout.beside[:, [*OPPOSITE]] if layout.params.moves != "mirrored" else layout.beside
    leads_here = made.move[rows, comes_from, np.arange(STAY)] == cells[:, None]
    there = np.zeros(passable.shape, dtype=bool)
    there[np.arange(len(there)), made.agent] = True
    back = there.copy()
    while True:
        more_there = passable & (there | (there[:, comes_from] & leads_here).any(2))
        led_back = np.take_along_axis(back, onward.reshape(len(back), -1), 1).reshape(onward.shape)
        more_back = passable & (back | led_back.any(2))
        if (more_there == there).all() and (more_back == back).all():
            return (there & back == passable).all(1)
        there, back = more_there, more_back
