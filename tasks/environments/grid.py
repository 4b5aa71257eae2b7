"""Rooms on a square of cells, with things to carry, a locked door and a goal that is a formula over facts.

    goal hold red you r4 c1 hand none door r2 c3 key r0 c0 red r1 c5          the player replies: north
    you r3 c1 hand none                                                       ... and so on

One player with one hand: taking a thing puts down what is held. What moves do, what is rewarded and what is seen are three rules that
vary independently (the factors of AutoEnv, arXiv 2511.19304); goals are formulas in disjunctive normal form over facts, as in XLand
(arXiv 2107.12808). The best action is found by exact search, which sees all that there is, and takes milliseconds an episode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.contract.problem import Split
from tasks.environments import NO_ACTION, NoOracle, Steps, mistakes
from tasks.environments import grid_goals as goals
from tasks.environments import grid_starts as starts
from tasks.environments.draws import below, happens, numbers, split_of
from tasks.environments.grid_goals import COLOURS, FACTS, KEY, OPEN
from tasks.environments.grid_search import FAR, SLIP, Board, Option, returns, steps_to
from tasks.environments.grid_starts import (
    ARROW,
    ENVIRONMENT,
    KEY_LIES,
    OPEN_DOOR,
    PRIZE,
    SHUT_DOOR,
    STAY,
    STEPS,
    THING,
    TRAP,
    WALL,
    Params,
    Starts,
)

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

NAME = ENVIRONMENT
TAKES = tuple(f"take-{one}" for one in COLOURS)
DOOR_ACTIONS = ("take-key", "open")
DIRECTIONS = ("north", "south", "west", "east")
WAIT, DROP, TAKE = STAY, STAY + 1, STAY + 2
"""Actions: the directions, to wait, to put down what is held, to take each thing, and with a locked door to take its key and to open
it."""
ERRORS = {
    "stray": "a move in a random direction instead",
    "idle": "waits instead",
    "fumble": "puts down what it holds instead",
}
PLACES = tuple(f"{letter}{number}" for letter in "rc" for number in range(7))
WORDS = (
    *DIRECTIONS, "wait", "drop", *TAKES, *DOOR_ACTIONS, *PLACES, *COLOURS, *goals.WORDS,
    "goal", "you", "hand", "none", "key", "door", "wall", "trap", "prize", "arrow",
)  # fmt: skip
"""The same for all params, so that a model of one variation can read another."""
REACH = 2
"""Rows and columns that a player with `sight: near` sees to each side."""


@dataclass(frozen=True)
class State:
    """n episodes; arrays are never written to. start: where they began.

    agent: (n,) cells. places: (n, k) where each thing is. hand: (n,) what is held, -1 for nothing. key, open: (n,) bool. been: (n, k)
    bool. got: (n, p) bool, the subgoals that were reached. taken: (n,) steps. over: (n,) bool. slips: (n, limit) directions, (n, 0)
    where no move slips. before: the state one step ago, where the player sees that.
    """

    start: Starts
    slips: Array
    agent: Array
    places: Array
    hand: Array
    key: Array
    open: Array
    been: Array
    got: Array
    taken: Array
    over: Array
    before: State | None = None


@dataclass
class Grid:
    """See `tasks.environments.Environment`.

    An observation (n, c + 6 + 4 options) int16: what each cell shows (with `sight: near`: of the 5 x 5 cells around, a wall beyond the
    edge), the player's row and column, what is held (0 nothing, else 1 + its looks), whether it has the key, whether the door is open,
    steps left, and for each literal of the goal its fact and whether it is negated.
    """

    params: Params
    name = NAME
    errors = ERRORS

    def __post_init__(self) -> None:
        params = self.params
        self._plan = starts.plan(params)
        self.limit, self.families = params.limit, params.families
        self._replies = (*DIRECTIONS, "wait", "drop", *TAKES[: params.things], *(DOOR_ACTIONS if params.locked else ()))
        self.actions = len(self._replies)
        self.words = WORDS
        self._looks = np.argsort(numbers([params.skin], len(COLOURS), NAME, "skin")[0]) if params.skin else np.arange(len(COLOURS))
        self._tables: dict[tuple[int, int, tuple[int, ...]], Array | list[Array]] = {}
        self._tables_of: Starts | None = None
        self._in_hand = np.array([*(1 + self._looks), 0])  # by what is held, the last for -1
        self._needs_key = TAKE + params.things

    # Episodes.

    def reset(self, seeds: Sequence[int]) -> Array:
        """Draw rooms, things and the goal of each seed; returns the first observations."""
        start = starts.draw(self.params, seeds)
        n, things = start.things.shape
        no, nothing = np.zeros(n, dtype=bool), np.zeros((n, things), dtype=bool)
        got = np.zeros((n, start.parts.shape[1] + 1), dtype=bool)
        slips = self._slips(seeds) if self.params.moves == "slippery" else np.zeros((n, 0), dtype=np.int64)
        zero, none = np.zeros(n, dtype=np.int64), np.full(n, -1)
        self._state = State(start, slips, start.agent, start.things, none, no, no, nothing, got, zero, no)
        return self._observation()

    def step(self, actions: Array) -> Steps:
        """Move, take, drop or wait, under the rules that the params chose."""
        state = self._state
        doing = np.asarray(actions)
        doing = np.where(state.over | (doing < 0) | (doing >= self.actions), WAIT, doing)
        direction = np.minimum(doing, STAY)
        if self.params.moves == "slippery":
            slip = state.slips[np.arange(len(doing)), state.taken.clip(max=self.limit - 1)]
            direction = np.where((direction < STAY) & (slip < STAY), slip, direction)
        after, reward, terminal, subgoals = self._acted(state, doing, direction)
        self._state, ended = after, after.over & ~state.over
        return Steps(self._observation(), reward, terminal, ended & ~terminal, subgoals)

    def _slips(self, seeds: Sequence[int]) -> Array:
        """(n, limit) the direction in which each step would slip, STAY where it would not: by the seed alone."""
        drawn = numbers(seeds, 2 * self.limit, NAME, "slip").reshape(len(seeds), self.limit, 2)
        return np.where(happens(drawn[..., 0], SLIP), below(drawn[..., 1], len(STEPS)), STAY)

    def _acted(self, state: State, doing: Array, direction: Array) -> tuple[State, Array, Array, Array]:
        """(state, reward, terminal, subgoals) after actions (n,), those that are moves in the directions given; STAY for others."""
        start, n = state.start, len(doing)
        rows = np.arange(n)
        agent = start.move[rows, state.agent, direction]
        key, opened = state.key, state.open
        if self.params.locked:
            agent = np.where((agent == start.door) & ~opened, state.agent, agent)
            opened = opened | ((doing == self._needs_key + 1) & key & self._plan.near[agent, start.door])
            key = key | ((doing == self._needs_key) & (agent == start.key))
        things = self.params.things
        thing = np.minimum(np.maximum(doing - TAKE, 0), things - 1)
        taken = (doing == TAKE + thing) & (state.places.take(rows * things + thing) == agent)
        hand = np.where(taken, thing, np.where(doing == DROP, -1, state.hand))
        places = np.where(hand[:, None] == np.arange(things), agent[:, None], state.places)
        been = state.been | (places == agent[:, None])
        facts = goals.facts_of(agent, places, hand, been, self._plan.near)
        facts[:, KEY], facts[:, OPEN] = key, opened
        trapped = start.ends_here[rows, agent]
        holding = goals.holds(facts, start.goal, start.negated) & ~trapped
        reached = np.concatenate([facts.take(start.parts + (rows * FACTS)[:, None]), holding[:, None]], 1)
        live = ~state.over
        first = reached & start.counts & ~state.got & live[:, None]
        subgoals = first.sum(1)
        earned = subgoals / start.parts_count if self.params.reward == "parts" else holding
        reward = np.where(live, np.where(trapped, -1.0, earned), 0.0)
        terminal = live & (trapped | (holding & (self.params.reward != "while")))
        steps = state.taken + live
        over = state.over | terminal | (steps >= self.limit)
        before = replace(state, before=None) if self.params.sight == "late" else None
        after = State(start, state.slips, agent, places, hand, key, opened, been, state.got | reached, steps, over, before)
        return after, reward, terminal, subgoals

    def snapshot(self) -> State:
        """The state, which nobody changes: a step makes another one."""
        return self._state

    def restore(self, kept: State) -> None:
        """Go back to a state."""
        self._state = kept

    def _observation(self) -> Array:
        state, params = self._state, self.params
        seen, n, cells = state.before or state, len(state.agent), params.size**2
        board, literals = self._board(seen), state.start.literals
        board = board[np.arange(n)[:, None], self._window[seen.agent]] if params.sight == "near" else board[:, :cells]
        found = np.empty((n, board.shape[1] + 6 + literals.shape[1]), dtype=np.int16)
        own, found[:, : board.shape[1]], found[:, board.shape[1] + 6 :] = found[:, board.shape[1] :], board, literals
        own[:, 0], own[:, 1] = np.divmod(seen.agent, params.size)
        own[:, 2] = self._in_hand[seen.hand]
        own[:, 3], own[:, 4], own[:, 5] = seen.key, seen.open, self.limit - state.taken
        return found

    def _board(self, seen: State) -> Array:
        """(n, c + 2) what each cell shows; then what lies beyond the edge, and a place for what lies nowhere."""
        start, cells = seen.start, seen.start.board.shape[1]
        board, rows, dark, nowhere = start.wide_board.copy(), np.arange(len(seen.agent)), cells, cells + 1
        if self.params.locked:
            board[rows, start.door] = np.where(seen.open, OPEN_DOOR, SHUT_DOOR)
            board[rows, np.where(seen.key, nowhere, start.key)] = KEY_LIES
        places = np.where(seen.hand[:, None] == np.arange(seen.places.shape[1]), nowhere, seen.places)
        board[rows[:, None], places[:, ::-1]] = THING + self._looks[: places.shape[1]][::-1]
        board[:, dark] = WALL
        return board

    @cached_property
    def _window(self) -> Array:
        """(c, 25): the cells around each, the one beyond the edge where there is none."""
        size = self.params.size
        row, column = (one[:, None, None] for one in np.divmod(np.arange(size**2), size))
        rows, columns = row + np.arange(-REACH, REACH + 1)[:, None], column + np.arange(-REACH, REACH + 1)
        inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
        return np.where(inside, rows * size + columns, size**2).reshape(size**2, -1)

    # The optimum.

    def oracle(self) -> Array:
        """The first of the best actions; with `reward: parts`, the first of the shortest way to the goal."""
        self._check_search()
        state, n = self._state, len(self._state.agent)
        values = np.stack([self._value_after(action) for action in range(self.actions)], 1)
        if self.params.moves == "slippery":
            values[:, :STAY] = (1 - SLIP) * values[:, :STAY] + SLIP * values[:, :STAY].mean(1, keepdims=True)
        # Equal returns differ in their last bits when they are sums in another order; the first of those is the best.
        best = (values >= values.max(1, keepdims=True) - 1e-9).argmax(1)
        return np.where(state.over, NO_ACTION, best) if n else best

    def _value_after(self, action: int) -> Array:
        """(n,) what the episodes are worth after an action, as a move in its own direction: minus the steps to the goal, or with
        slippery moves the best expected return from then on, with what the action itself earns."""
        state = self._state
        doing = np.full(len(state.agent), action)
        after, reward, terminal, _ = self._acted(state, doing, np.minimum(doing, STAY))
        if self.params.moves == "slippery":
            return reward + np.where(after.over, 0.0, self._worth(after))
        return np.where(terminal & (reward < 0), -2.0 * FAR, -self._steps_left(after))

    def _steps_left(self, state: State) -> Array:
        """(n,) steps to the goal at least; FAR where it cannot be reached."""
        found = np.zeros(len(state.agent))
        for row in np.flatnonzero(~self._state.over).tolist():
            found[row] = min(self._looked_up(state, row, option) for option in range(self.params.options))
        return found

    def _worth(self, state: State) -> Array:
        """(n,) the best expected return from now on, when moves slip."""
        return np.array([self._looked_up(state, row, 0) for row in range(len(state.agent))], dtype=float)

    def best_return(self) -> Array:
        """(n,) the most that can be expected from now to the end of the episode. Raises NoOracle like `oracle`. With `reward: parts`,
        of what the goal brings and what is necessary for it, where it can be reached in time, else 0."""
        self._check_search()
        state, kind = self._state, self.params.reward
        if self.params.moves == "slippery":
            return np.where(state.over, 0.0, self._worth(state))
        left = np.where(state.over, 0, self.limit - state.taken)
        steps = np.maximum(self._steps_left(state), 1)
        if kind == "while":
            return np.maximum(0.0, left - steps + 1)
        whole = (state.start.counts & ~state.got).sum(1) / state.start.parts_count if kind == "parts" else 1.0
        return np.where(steps <= left, whole, 0.0)

    def _check_search(self) -> None:
        params = self.params
        if params.moves != "slippery":
            return
        heavy = [name for name in params.families if name not in (*goals.ONE_THING, *goals.ON_FOOT)]
        why = (
            f"goals of the kind {heavy[0]!r}, which have too many states" if heavy
            else f"{params.options} options" if params.options > 1
            else "reward: parts" if params.reward == "parts"
            else ""
        )  # fmt: skip
        if why:
            raise NoOracle(
                f"environment {NAME}: with moves: slippery nobody computes the best action for {why}. Computed are "
                f"{', '.join((*goals.ONE_THING, *goals.ON_FOOT))} with options: 1 and another reward than parts."
            )

    def _looked_up(self, state: State, row: int, which: int) -> float:
        """What the table of an option says of one episode's state."""
        start, cells = state.start, state.start.board.shape[1]
        moves = goals.form(self.families[start.family[row]], self.params.things).moves
        things = [one for one in start.speaks_of[row, which].tolist() if one >= 0]
        if moves:
            places = [cells if state.hand[row] == one else int(state.places[row, one]) for one in things]
        else:
            places = [int(state.been[row, one]) for one in things]
        far = int(state.key[row]) + int(state.open[row])
        lie = () if moves else tuple(int(state.places[row, one]) for one in things)
        table = self._table(row, which, Option(*self._literals(row, which), tuple(things), moves, lie))
        found = table[self.limit - int(state.taken[row])] if isinstance(table, list) else table
        return float(found[(state.agent[row], far, *places)])

    def _literals(self, row: int, which: int) -> tuple[tuple[int, ...], tuple[bool, ...]]:
        start = self._state.start
        return tuple(start.goal[row, which].tolist()), tuple(start.negated[row, which].tolist())

    def _table(self, row: int, which: int, option: Option) -> Array | list[Array]:
        """The table of an option in one episode, filled when it is first needed."""
        start = self._state.start
        if self._tables_of is not start:
            self._tables_of, self._tables = start, {}
        if (row, which, option.lie) not in self._tables:
            board = Board(start.move[row], self._plan.near, int(start.door[row]), int(start.key[row]), start.ends_here[row])
            slips = self.params.moves == "slippery"
            made = returns(board, option, self.limit, self.params.reward == "while") if slips else steps_to(board, option)
            self._tables[row, which, option.lie] = made
        return self._tables[row, which, option.lie]

    def expert(self, rates: Mapping[str, float], rng: np.random.Generator) -> Array:
        """The best action, or at these rates what `errors` says."""
        best = self.oracle()
        wrong = mistakes.drawn(NAME, ERRORS, rates, len(best), rng)
        strays = rng.integers(len(DIRECTIONS), size=len(best))
        return np.select([best == NO_ACTION, wrong == "stray", wrong == "idle", wrong == "fumble"], [best, strays, WAIT, DROP], best)

    # As text.

    def tell(self) -> list[str]:
        """At first the goal and what is seen; then where the player is and, with `sight: near`, what is seen anew."""
        return ["" if over else " ".join(self._words_of(row)) for row, over in enumerate(self._state.over.tolist())]

    def _words_of(self, row: int) -> list[str]:
        state, seen = self._state, self._state.before or self._state
        first = not state.taken[row]
        start, hand = state.start, int(seen.hand[row])
        words = ["goal", goals.text(start.goal[row].tolist(), start.negated[row].tolist())] if first else []
        words += ["you", self._place(seen.agent[row]), "hand", self._colour(hand) if hand >= 0 else "none"]
        words += ["key"] * bool(seen.key[row]) + ["open"] * bool(seen.open[row])
        return words + (self._things_seen(seen, row) if first or self.params.sight == "near" else [])

    def _things_seen(self, seen: State, row: int) -> list[str]:
        """What lies where, of all that the player sees."""
        start = seen.start
        visible = set(self._window[seen.agent[row]].tolist()) if self.params.sight == "near" else set(range(start.board.shape[1]))
        found = [(int(cell), "door") for cell in start.doorways[row]]
        if self.params.locked and not seen.key[row]:
            found.append((int(start.key[row]), "key"))
        found += [(int(seen.places[row, one]), self._colour(one)) for one in range(seen.places.shape[1]) if seen.hand[row] != one]
        for cell in np.flatnonzero((start.board[row] >= TRAP) | ((start.board[row] == WALL) & ~self._plan.inner)).tolist():
            what = int(start.board[row, cell])
            found.append(
                (cell, f"arrow {DIRECTIONS[what - ARROW]}" if what >= ARROW else {WALL: "wall", TRAP: "trap", PRIZE: "prize"}[what])
            )
        return [f"{what} {self._place(cell)}" for cell, what in found if cell in visible]

    def _colour(self, thing: int) -> str:
        return COLOURS[self._looks[thing]]

    def _place(self, cell: int) -> str:
        row, column = divmod(int(cell), self.params.size)
        return f"r{row} c{column}"

    def replies(self, actions: Array) -> list[str]:
        """The word of each action; none for NO_ACTION."""
        return ["" if action == NO_ACTION else self._replies[action] for action in np.asarray(actions).tolist()]

    def read(self, replies: Sequence[str]) -> Array:
        """The action whose word a reply is; NO_ACTION for anything else."""
        known = {word: action for action, word in enumerate(self._replies)}
        return np.array([known.get(reply.strip(), NO_ACTION) for reply in replies], dtype=np.int64)

    # Kinds of episodes.

    def family(self, seed: int) -> str:
        """The kind of its goal."""
        return starts.family(self.params, seed)

    def split(self, seed: int) -> Split:
        """By all that a start consists of, or by its goal alone (`held_out`)."""
        start = starts.draw(self.params, [seed])
        goal = (start.goal[0].tolist(), start.negated[0].tolist())
        if self.params.held_out == "goal":
            return split_of(NAME, goal)
        own = (start.board[0].tolist(), start.agent[0], start.things[0].tolist(), start.key[0], start.doorways[0].tolist())
        return split_of(NAME, goal, *own)


def environment(params: Params) -> Grid:
    """The rooms that params describe."""
    return Grid(params)
