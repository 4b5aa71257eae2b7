"""Foreign tasks: the 800 multi-turn problems of the Berkeley Function Calling Leaderboard through the plain-object adapter.

Every ground truth replays without a failure, and every mutated one is graded 0: by its state where it leaves another one, else by the
required call that is missing. Which mutations leave another state is said by the leaderboard's own checker, on its own objects, outside
Cairn; grading must agree with it on every one.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tasks.contract.problem import Action
from tasks.contract.trajectory import Trajectory
from tasks.worlds.api.runtime import World
from tests.bfcl.foreign import CATEGORIES, Entry, class_of, entries

pytestmark = pytest.mark.bfcl
CALLS = {"base": 1142, "miss_func": 1140, "miss_param": 1140, "long_context": 1203}
"""Ground truth calls by category: 4,625."""
CHANGED = {"base": 193, "miss_func": 194, "miss_param": 193, "long_context": 193}
"""Problems in which leaving out or changing a write changes the state: 773. In 24 nothing is written, in 3 the writes have no effect;
there, what is left out is a required call."""
Calls = Sequence[tuple[str, dict[str, Any]]]


def of(category: str) -> list[Entry]:
    return [entry for entry in entries() if entry.category == category]


def played(world: World, entry: Entry, calls: Calls) -> tuple[Trajectory, World]:
    """A conversation that makes these calls, and the fork in which it ends."""
    final, trajectory = world.fork(), Trajectory(entry.problem(world), 0)
    for name, arguments in calls:
        trajectory.calls.append((Action(name, arguments, world.tools[name].kind), final.call(name, arguments)))
    return trajectory, final


@pytest.mark.parametrize("category", CATEGORIES)
def test_all_ground_truths_replay(category: str) -> None:
    start, count = time.perf_counter(), 0
    found = of(category)
    for entry in found:
        world = entry.world()
        problem = entry.problem(world)
        replay = world.replay(problem.actions)
        assert replay.ok, (entry.entry_id, replay.errors)
        count += len(replay.results)
        trajectory, final = played(world, entry, entry.calls)
        assert world.grade(trajectory, final).reward == 1, entry.entry_id
        assert [result for _, result in trajectory.calls] == list(replay.results), "the same answers each time"
    assert (len(found), count) == (200, CALLS[category])
    print(f"\n{category}: {len(found)} ground truths, {count} calls, {time.perf_counter() - start:.1f} s")


def mutations(world: World, calls: Calls) -> Iterator[Calls]:
    """Each write left out, and each write with one argument changed."""
    for place, (name, arguments) in enumerate(calls):
        if world.tools[name].kind == "write":
            yield [*calls[:place], *calls[place + 1 :]]
            for argument, value in arguments.items():
                changed = {**arguments, argument: other(value)}
                yield [*calls[:place], (name, changed), *calls[place + 1 :]]


def other(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return f"{value}x"
    if isinstance(value, list):
        return value[1:] if value else ["x"]
    return {key: other(item) for key, item in value.items()}


def left_by(entry: Entry, calls: Calls) -> dict[str, Any]:
    """The objects after calls that nobody checks: outside Cairn, as the leaderboard runs them."""
    objects = entry.objects()
    for name, arguments in calls:
        owner = next(owner for owner in entry.classes if hasattr(class_of(owner), name))
        try:
            getattr(objects[owner], name)(**json.loads(json.dumps(arguments)))
        except Exception:  # the leaderboard turns what a method raises into its answer
            continue
    return objects


@pytest.mark.parametrize("category", CATEGORIES)
def test_mutated_ground_truths_are_graded_0(category: str) -> None:
    from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import state_checker

    count: Counter[str] = Counter()
    for entry in of(category):
        world = entry.world()
        truth = left_by(entry, entry.calls)
        caught = False
        for calls in mutations(world, entry.calls):
            trajectory, final = played(world, entry, calls)
            outcome = world.grade(trajectory, final)
            assert outcome.reward == 0, (entry.entry_id, calls)
            same = bool(state_checker(left_by(entry, calls), truth)["valid"])
            assert outcome.state == int(same), (entry.entry_id, calls, final.diff())
            caught = caught or not same
            count["mutations of a write"] += 1
            count["graded 0 by state"] += not same
            count["graded 0 by required calls alone"] += same
        for left_out in () if caught else entry.calls:
            trajectory, final = played(world, entry, [call for call in entry.calls if call != left_out])
            assert world.grade(trajectory, final).reward == 0, (entry.entry_id, left_out)
            count["other calls left out"] += 1
        count["problems"] += 1
        count["problems with a mutation that changes the state"] += caught
        count["problems without a write"] += not any(world.tools[name].kind == "write" for name, _ in entry.calls)
    print(f"\n{category}: {dict(count)}")
    assert count["problems"] == 200 and count["problems with a mutation that changes the state"] == CHANGED[category]
