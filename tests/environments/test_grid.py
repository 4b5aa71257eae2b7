"""Rooms with goals: rules by hand, the exact optimum against a search that plays, the factors, text and bad input.

By hand: in an open room a thing three rows and two columns away is held after 6 actions, 5 moves and taking it. With slippery moves and
one step left, a player beside the thing reaches it with .8 + .2 / 4 = .85.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from tasks.contract.params import BadInput, validate
from tasks.environments import NO_ACTION, NoOracle
from tasks.environments.grid import DROP, FAR, TAKE, WAIT, Grid, Params, State, environment
from tasks.environments.grid_starts import PRIZE, SHUT_DOOR, THING, TRAP, WALL

KINDS = ("reach", "fetch", "bring", "carry", "leave", "tour")
VARIATIONS: dict[str, dict[str, Any]] = {
    "rooms": {"rooms": 4, "goals": KINDS, "walls": 1, "size": 6},
    "locked": {"rooms": 2, "locked": True, "size": 5, "reward": "parts"},
    "useless": {"useless": 0.75, "reward": "while", "moves": "wrapped", "options": 2},
    "arrows": {"moves": "arrows", "reward": "avoid", "sight": "near", "skin": 5},
    "mirrored": {"moves": "mirrored", "reward": "decoy", "sight": "late", "goals": ("carry", "tour")},
    "slippery": {"moves": "slippery", "goals": ("reach", "fetch", "tour")},
}


def grid(**settings: Any) -> Grid:
    return environment(validate(Params, settings, "environments.grid"))


def alone(seed: int, **settings: Any) -> Grid:
    """One episode."""
    made = grid(**settings)
    made.reset([seed])
    return made


def take(state: State, rows: Any) -> State:
    """Some of the episodes."""
    kept = {one.name: getattr(state, one.name) for one in fields(State)}
    return State(
        **{name: value if value is None else value.take(rows) if name == "start" else value[rows] for name, value in kept.items()}
    )


def played(made: Grid, *actions: str) -> list[float]:
    """Rewards of one episode's actions, by their words."""
    found = []
    for word in actions:
        [action] = made.read([word])
        assert action != NO_ACTION, word
        found.append(float(made.step(np.array([action])).reward[0]))
    return found


def distance(made: Grid, first: int, second: int) -> int:
    return sum(abs(a - b) for a, b in zip(divmod(first, made.params.size), divmod(second, made.params.size), strict=True))


def way(made: Grid, start: int, end: int) -> list[str]:
    """The moves of a straight way."""
    down, right = (b - a for a, b in zip(divmod(start, made.params.size), divmod(end, made.params.size), strict=True))
    return ["south" if down > 0 else "north"] * abs(down) + ["east" if right > 0 else "west"] * abs(right)


def steps_by_playing(made: Grid) -> float:
    """Fewest actions to the first reward of one episode, by trying all of them from all states there are."""
    frontier, seen, steps = made.snapshot(), set(), 0
    while len(frontier.agent):
        steps += 1
        reached = []
        for action in range(made.actions):
            made.restore(replace(frontier, taken=np.zeros_like(frontier.taken)))
            rewards = made.step(np.full(len(frontier.agent), action)).reward
            if (rewards > 0).any():
                return steps
            reached.append(made.snapshot())
        joined = [
            np.concatenate([getattr(one, name) for one in reached])
            for name in ("agent", "places", "hand", "key", "open", "been", "over")
        ]
        keys = [tuple(row) for row in np.column_stack(joined[:-1]).tolist()]
        new = []
        for row, key in enumerate(keys):
            if key not in seen and not joined[-1][row]:
                seen.add(key)
                new.append(row)
        rows = np.concatenate([np.arange(len(one.agent)) for one in reached])[new]
        which = np.concatenate([np.full(len(one.agent), place) for place, one in enumerate(reached)])[new]
        parts = [take(one, rows[which == place]) for place, one in enumerate(reached)]
        merged = {one.name: [getattr(part, one.name) for part in parts] for one in fields(State) if one.name not in ("start", "before")}
        start = take(frontier, np.zeros(len(new), dtype=int)).start
        frontier = State(start, **{name: np.concatenate(values) for name, values in merged.items()})
    return FAR


def play_to_the_end(made: Grid, seeds: range) -> Any:
    made.reset(seeds)
    found = np.zeros(len(seeds))
    while not made.snapshot().over.all():
        found += made.step(made.oracle()).reward
    return found


# The optimum.


@pytest.mark.parametrize("kind", KINDS)
def test_in_an_open_room_the_optimum_is_a_formula(kind: str) -> None:
    made = grid(goals=(kind,), limit=40)
    made.reset(range(12))
    state = made.snapshot()
    for row in range(12):
        one, two = (int(value) for value in state.start.speaks_of[row, 0])
        me, a, b = int(state.agent[row]), int(state.places[row, one]), int(state.places[row, two])
        to_a, to_b, apart = distance(made, me, a), distance(made, me, b), distance(made, a, b)
        steps = {
            "reach": to_a,
            "fetch": to_a + 1,
            "bring": min(to_a, to_b) + 1 + apart - 1,
            "leave": min(to_a, to_b) + 1 + apart - 1 + 1,
            "carry": min(to_a + 1 + apart, to_b + 1 + apart + 1),  # or bring b to a, and take a
            "tour": min(to_a, to_b) + apart,
        }[kind]
        assert made._steps_left(state)[row] == steps, (row, kind)


@pytest.mark.parametrize(
    "settings",
    [
        {"size": 3, "goals": ("carry", "leave"), "things": 3, "walls": 1},
        {"size": 5, "rooms": 2, "locked": True, "things": 1, "limit": 60},
        {"size": 4, "goals": ("bring", "tour"), "things": 2, "moves": "arrows", "reward": "avoid"},
        {"size": 4, "goals": ("fetch", "reach"), "things": 2, "moves": "wrapped", "options": 2, "reward": "decoy"},
        {"size": 3, "goals": ("tour", "carry"), "things": 2, "moves": "mirrored", "useless": 0.5},
    ],
)
def test_the_optimum_is_that_of_a_search_that_plays(settings: Mapping[str, Any]) -> None:
    for seed in range(4):
        made = alone(seed, **settings)
        [steps] = made._steps_left(made.snapshot())
        assert max(steps, 1) == steps_by_playing(made), (seed, settings)


@pytest.mark.parametrize("name", [name for name in VARIATIONS if name != "slippery"])
def test_the_oracle_earns_the_best_return_and_a_random_player_less(name: str) -> None:
    made, rng = grid(**{**VARIATIONS[name], "limit": 60}), np.random.default_rng(0)
    made.reset(range(16))
    best = made.best_return()
    assert np.allclose(play_to_the_end(made, range(16)), best) and best.max() >= 1
    made.reset(range(16))
    found = np.zeros(16)
    while not made.snapshot().over.all():
        found += made.step(rng.integers(made.actions, size=16)).reward
    assert (found <= best + 1e-9).all() and found.mean() < best.mean() - 0.2


def test_after_errors_the_oracle_is_still_the_best_of_all_actions() -> None:
    made, rng = grid(goals=("carry",), size=4, things=3, limit=30), np.random.default_rng(1)
    made.reset(range(8))
    for _ in range(10):
        before = made._steps_left(made.snapshot())
        kept = made.snapshot()
        made.step(made.oracle())
        live = ~kept.over & ~made.snapshot().over
        assert (made._steps_left(made.snapshot()) == before - 1)[live].all()
        made.restore(kept)
        made.step(rng.integers(made.actions, size=8))


def test_slippery_moves_by_hand_and_on_average() -> None:
    made = grid(moves="slippery", goals=("reach",), limit=1)
    made.reset(range(300))
    state = made.snapshot()
    thing = state.start.speaks_of[:, 0, 0]
    beside = [row for row in range(300) if distance(made, int(state.agent[row]), int(state.places[row, thing[row]])) == 1]
    assert len(beside) > 5 and np.allclose(made.best_return()[beside], 0.85)
    made = grid(moves="slippery", goals=("fetch", "tour"), limit=9, reward="avoid")
    seeds = range(200)
    made.reset(seeds)
    expected, found = made.best_return(), play_to_the_end(made, seeds)
    assert abs(expected.mean() - found.mean()) < 3 * np.std(found - expected) / np.sqrt(len(seeds))


def test_goals_that_teach_nothing() -> None:
    made = grid(useless=0.75, goals=("fetch",), reward="while")
    kinds = [made.family(seed) for seed in range(3000)]
    shares = {name: kinds.count(name) / 3000 for name in made.families}
    assert shares == pytest.approx({"fetch": 0.25, "never": 0.5, "already": 0.25}, abs=0.04)
    made.reset(range(40))
    best = made.best_return()
    for row, kind in enumerate(kinds[:40]):
        assert {"never": best[row] == 0, "already": best[row] == made.limit, "fetch": 0 < best[row] < made.limit}[kind]


# The rules.


def test_a_hand_holds_one_thing_and_swaps() -> None:
    made = alone(3, size=4, things=2, goals=("carry",), reward="while", limit=60)
    state = made.snapshot()
    red, green = state.places[0].tolist()
    played(made, *way(made, int(state.agent[0]), red), "take-red", *way(made, red, green))
    assert made.snapshot().places[0].tolist() == [green, green] and made.snapshot().hand.tolist() == [0]
    played(made, "take-green", "north", "south", "west", "east")
    after = made.snapshot()
    assert after.hand.tolist() == [1] and after.places[0, 0] == green and after.places[0, 1] == after.agent[0]
    played(made, "drop", "take-red" if after.agent[0] == green else "wait")
    assert made.snapshot().been.all()


def test_nothing_is_taken_from_afar_and_what_is_no_action_takes_a_step() -> None:
    made = alone(0)
    before = made.snapshot()
    played(made, *(f"take-{one}" for one in ("red", "green", "blue", "yellow")), "drop", "wait")
    made.step(np.array([NO_ACTION]))
    after = made.snapshot()
    assert after.hand.tolist() == [-1] and (after.agent == before.agent).all() and after.taken.tolist() == [7]


def test_a_locked_door_opens_with_its_key_only_and_its_parts_are_rewarded_once() -> None:
    made = alone(1, rooms=2, locked=True, size=5, reward="parts", things=1, limit=60)
    start = made.snapshot().start
    key, door, thing = int(start.key[0]), int(start.door[0]), int(start.things[0, 0])
    before = door - 1
    assert not any(played(made, *way(made, int(start.agent[0]), before), "open", "east"))
    assert made.snapshot().agent[0] == before, "shut"
    assert played(made, *way(made, before, key), "take-key", "take-key")[-2:] == [0.25, 0]
    assert played(made, *way(made, key, before), "open", "open", "east", "east")[-4:] == [0.25, 0, 0, 0]
    rewards = played(made, *way(made, door + 1, thing), "take-red")
    assert sum(rewards) == 0.5 and made.snapshot().over.all()


@pytest.mark.parametrize("kind", KINDS)
def test_parts_sum_to_one_on_the_way_to_a_goal(kind: str) -> None:
    made = grid(goals=(kind,), reward="parts", size=4, limit=40)
    assert np.allclose(play_to_the_end(made, range(10)), 1)


@pytest.mark.parametrize(("reward", "symbol"), [("avoid", TRAP), ("decoy", PRIZE)])
def test_traps_end_an_episode_and_a_prize_is_one(reward: str, symbol: int) -> None:
    made = grid(reward=reward, size=4, things=1, goals=("reach",))
    made.reset(range(20))
    board = made.snapshot().start.board
    assert ((board == symbol).sum(1) == {"avoid": 3, "decoy": 1}[reward]).all()
    row, cell = next((row, cell) for row, cell in np.argwhere(board[:, 4:] == symbol).tolist() if board[row, cell] == 0)
    agent = made.snapshot().agent.copy()
    agent[row] = cell  # north of the trap, whose number counts from the second row on
    made.restore(replace(made.snapshot(), agent=agent))
    steps = made.step(made.read(["south"] * 20))
    assert steps.reward[row] == -1 and steps.terminal[row] and not steps.truncated[row]
    assert made.step(made.oracle()).reward[row] == 0


def test_moves_that_are_mirrored_wrap_or_follow_arrows() -> None:
    for moves, word, far in (("plain", "north", (-1, 0)), ("mirrored", "north", (1, 0)), ("mirrored", "west", (0, 1))):
        made = alone(5, moves=moves, size=5)
        made.restore(replace(made.snapshot(), agent=np.array([12])))
        played(made, word)
        assert divmod(int(made.snapshot().agent[0]), 5) == (2 + far[0], 2 + far[1])
    made = alone(5, moves="wrapped", size=5)
    made.restore(replace(made.snapshot(), agent=np.array([2])))
    played(made, "north")
    assert made.snapshot().agent.tolist() == [22]
    made = alone(5, moves="arrows", size=5)
    start = made.snapshot().start
    cell = int(np.flatnonzero(start.board[0] > PRIZE)[0])
    pointing = int(start.board[0, cell] - PRIZE - 1)
    assert [int(start.move[0, cell, one]) != cell for one in range(4) if one != pointing] == [False] * 3


def test_an_episode_ends_at_its_limit_and_then_nothing_changes() -> None:
    made = grid(limit=3, goals=("carry",))
    made.reset(range(4))
    ends = [made.step(np.full(4, WAIT)) for _ in range(5)]
    assert [one.truncated.tolist() for one in ends] == [[False] * 4, [False] * 4, [True] * 4, [False] * 4, [False] * 4]
    assert not any(one.terminal.any() or one.reward.any() or one.subgoals.any() for one in ends)
    assert made.oracle().tolist() == [NO_ACTION] * 4 and made.tell() == [""] * 4 and made.best_return().tolist() == [0] * 4


# What is seen.


def test_sight_and_looks() -> None:
    whole, near, late, other = (alone(4, things=4, size=7, **one) for one in ({}, {"sight": "near"}, {"sight": "late"}, {"skin": 1}))
    cells = 49
    board = whole.reset([4])[0, :cells]
    around = near.reset([4])[0, :25].reshape(5, 5)
    row, column = divmod(int(whole.snapshot().agent[0]), 7)
    for down in range(-2, 3):
        for right in range(-2, 3):
            inside = 0 <= row + down < 7 and 0 <= column + right < 7
            assert around[down + 2, right + 2] == (board[(row + down) * 7 + column + right] if inside else WALL)
    looks = other.reset([4])[0]
    things = sorted(np.flatnonzero(board >= THING))
    assert (looks[things] != board[things]).any() and sorted(looks[things]) == sorted(board[things])
    assert (looks[-4:] == whole.reset([4])[0, -4:]).all(), "goals keep their names"
    first = late.reset([4])
    late.step(late.oracle())
    assert (late.step(np.array([WAIT])).observation[0, cells : cells + 2] != first[0, cells : cells + 2]).any()
    late.reset([4])
    assert (late.step(late.oracle()).observation[0, : cells + 5] == first[0, : cells + 5]).all()


def test_the_text_of_a_start_by_hand() -> None:
    made = alone(1, rooms=2, locked=True, size=5, things=1)
    text = made.tell()[0]
    start = made.snapshot().start
    places = [f"r{cell // 5} c{cell % 5}" for cell in (start.agent[0], start.door[0], start.key[0], start.things[0, 0])]
    assert text == f"goal hold red you {places[0]} hand none door {places[1]} key {places[2]} red {places[3]}"
    played(made, "wait")
    assert made.tell() == [f"you {places[0]} hand none"]
    assert (start.board[0] == WALL).sum() == 4 and made.reset([1])[0, start.door[0]] == SHUT_DOOR


@pytest.mark.parametrize("name", VARIATIONS)
def test_what_is_told_is_made_of_the_words_and_replies_are_read(name: str) -> None:
    made = grid(**VARIATIONS[name])
    made.reset(range(20))
    for _ in range(6):
        assert {word for text in made.tell() for word in text.split()} <= set(made.words)
        actions = made.expert({"stray": 0.2, "fumble": 0.2}, np.random.default_rng(0))
        assert (made.read(made.replies(actions)) == actions).all()
        made.step(actions)
    assert made.read(["north", " take-red ", "nowhere", ""]).tolist() == [0, TAKE, NO_ACTION, NO_ACTION]
    assert len(set(made.words)) == len(made.words)


# Many episodes.


@pytest.mark.parametrize("name", VARIATIONS)
def test_many_episodes_are_those_of_one_at_a_time_and_can_be_restored(name: str) -> None:
    made, other, seeds = grid(**VARIATIONS[name]), grid(**VARIATIONS[name]), range(8)
    first = made.reset(seeds)
    begun = made.snapshot()
    actions = np.random.default_rng(0).integers(-1, made.actions, size=(12, 8))
    found = [made.step(one) for one in actions]
    made.restore(begun)
    again = [made.step(one) for one in actions]
    for column, seed in enumerate(seeds):
        assert (other.reset([seed])[0] == first[column]).all()
        for step, steps in enumerate(found):
            single = other.step(actions[step, [column]])
            for part in fields(steps):
                value = getattr(steps, part.name)
                assert (value[column] == getattr(single, part.name)[0]).all() and (value == getattr(again[step], part.name)).all()


@pytest.mark.parametrize("name", VARIATIONS)
def test_every_cell_is_within_reach_and_no_goal_holds_at_the_start(name: str) -> None:
    made = grid(**VARIATIONS[name])
    made.reset(range(60))
    state = made.snapshot()
    cells = [np.column_stack([state.agent, state.places]), state.start.key[:, None]]
    lying = np.concatenate(cells if made.params.locked else cells[:1], 1)
    assert all(len(set(row)) == len(row) for row in lying.tolist())
    assert not (np.take_along_axis(state.start.board, lying, 1) != 0).any()
    families = np.array([made.family(seed) for seed in range(60)])
    assert (np.array(made.families)[state.start.family] == families).all()
    rewards = made.step(np.full(60, WAIT)).reward
    assert ((rewards > 0) == (families == "already")).all()


def test_equal_starts_lie_in_one_split() -> None:
    made = grid(size=3, things=1, goals=("reach",))
    texts: dict[str, set[str]] = {}
    counts = {"train": 0, "validation": 0, "test": 0}
    for seed in range(150):
        made.reset([seed])
        split = made.split(seed)
        texts.setdefault(made.tell()[0], set()).add(split)
        counts[split] += 1
    assert len(texts) < 100 and all(len(one) == 1 for one in texts.values()) and min(counts.values()) > 3
    apart = grid(held_out="goal", goals=("bring", "carry", "tour"))
    goals: dict[str, set[str]] = {}
    for seed in range(100):
        apart.reset([seed])
        goals.setdefault(apart.tell()[0].partition(" you")[0], set()).add(apart.split(seed))
    assert all(len(one) == 1 for one in goals.values()) and len(set.union(*goals.values())) > 1


# Who errs, and what is refused.


def test_the_errors_of_the_expert() -> None:
    made = grid(goals=("carry",))
    made.reset(range(30))
    rng = np.random.default_rng(0)
    assert (made.expert({}, rng) == made.oracle()).all()
    assert (made.expert({"idle": 1}, rng) == WAIT).all() and (made.expert({"fumble": 1}, rng) == DROP).all()
    strays = made.expert({"stray": 1}, rng)
    assert set(strays.tolist()) == {0, 1, 2, 3}
    with pytest.raises(BadInput, match=r"its expert makes no error 'fumbles'\. Did you mean 'fumble'"):
        made.expert({"fumbles": 0.1}, rng)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"locked": True}, "locked needs rooms: 2, and rooms is 1"),
        ({"moves": "wrapped", "rooms": 4}, "lead past the walls between rooms. Take rooms: 1, not 4"),
        ({"things": 2, "options": 3}, "2 things allow 2 options of a goal 'fetch'; options = 3"),
        ({"things": 1, "goals": ["tour"]}, "1 things allow 0 options of a goal 'tour'"),
        ({"size": 3, "walls": 6}, "a square of 3 x 3 has no room for all that lies in it"),
        ({"size": 3, "rooms": 2, "locked": True}, "has no room for all that lies in it"),
        ({"goals": ["fetsch"]}, "goals.0 = 'fetsch'"),
        ({"colour": 1}, "unknown key 'colour'"),
    ],
)
def test_params_that_allow_no_start_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        grid(**settings)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"goals": ["carry"]}, "goals of the kind 'carry', which have too many states"),
        ({"options": 2}, "2 options"),
        ({"reward": "parts"}, "reward: parts"),
    ],
)
def test_where_there_is_no_oracle_it_says_why(settings: dict[str, Any], why: str) -> None:
    made = grid(moves="slippery", **settings)
    made.reset([0])
    with pytest.raises(NoOracle) as caught:
        made.oracle()
    assert f"environment grid: with moves: slippery nobody computes the best action for {why}" in str(caught.value)
