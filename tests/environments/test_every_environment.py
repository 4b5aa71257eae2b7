"""What every environment keeps, whichever it is: the same checks for all modules of tasks/environments, found by looking."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from tasks.contract.params import BadInput
from tasks.contract.problem import SPLITS
from tasks.environments import NO_ACTION, Environment, NoOracle, frozen, tokens


def variations(kind: str) -> list[Mapping[str, Any]]:
    """`VARIATIONS` of an environment's test file, name -> params: it goes through the checks with these too, beside its defaults."""
    return list(getattr(import_module(f"tests.environments.test_{kind}"), "VARIATIONS", {}).values())


CASES = [(kind, params) for kind in frozen.kinds() for params in ({}, *variations(kind))]
SEEDS = tuple(range(1000, 1064))


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{','.join(case[1])}")
def environment(request: pytest.FixtureRequest) -> Environment:
    kind, params = request.param
    return frozen.make(kind, params)


def actions_at_random(environment: Environment, rng: np.random.Generator, n: int) -> Any:
    return rng.integers(0, environment.actions, n)


def played(environment: Environment, seeds: Any, choose: Any) -> tuple[Any, list[Any]]:
    """Returns (n,) of episodes, and all that was given on the way."""
    given, total = [environment.reset(seeds)], np.zeros(len(seeds))
    for _ in range(environment.limit):
        steps = environment.step(choose(environment))
        given += [steps.observation, steps.reward, steps.terminal, steps.truncated, steps.subgoals]
        total += steps.reward
    return total, given


def test_it_says_what_it_is(environment: Environment) -> None:
    assert environment.name in frozen.kinds() and environment.limit > 0 and environment.actions > 1
    assert environment.families and len(set(environment.families)) == len(environment.families)
    tokens.Vocabulary(environment.words)
    assert {type(one) for one in environment.words} == {str} and all(environment.errors.values())


def test_the_same_seed_gives_the_same_episode(environment: Environment) -> None:
    plans = np.random.default_rng(0).integers(0, environment.actions, (environment.limit, len(SEEDS)))
    runs = []
    for made in (environment, frozen.make(environment.name, environment.params.model_dump())):
        plan = iter(plans)
        runs.append(played(made, SEEDS, lambda _, plan=plan: next(plan))[1])
    assert all(np.array_equal(one, other) for one, other in zip(*runs, strict=True))


def test_one_at_a_time_is_as_all_at_once(environment: Environment) -> None:
    plans = np.random.default_rng(1).integers(0, environment.actions, (environment.limit, 8))
    plan = iter(plans)
    together = played(environment, SEEDS[:8], lambda _: next(plan))[1]
    for place in range(8):
        own = iter(plans[:, [place]])
        alone = played(environment, SEEDS[place : place + 1], lambda _, own=own: next(own))[1]
        assert all(np.array_equal(one[0], all_[place]) for one, all_ in zip(alone, together, strict=True))


def test_a_snapshot_brings_back_all_there_is(environment: Environment) -> None:
    rng = np.random.default_rng(2)
    environment.reset(SEEDS)
    first = actions_at_random(environment, rng, len(SEEDS))
    environment.step(first)
    kept, told = environment.snapshot(), environment.tell()
    plan = [actions_at_random(environment, rng, len(SEEDS)) for _ in range(environment.limit)]
    seen = [environment.step(actions) for actions in plan]
    other = frozen.make(environment.name, environment.params.model_dump())
    for again in (environment, other):
        again.restore(kept)
        assert again.tell() == told
        for steps, actions in zip(seen, plan, strict=True):
            repeated = again.step(actions)
            assert all(np.array_equal(getattr(steps, name), getattr(repeated, name)) for name in vars(steps))


def test_shapes_types_and_the_end(environment: Environment) -> None:
    n, rng = len(SEEDS), np.random.default_rng(3)
    observation, over = environment.reset(SEEDS), np.zeros(n, dtype=bool)
    assert len(observation) == n and np.issubdtype(observation.dtype, np.number)
    for _ in range(environment.limit):
        steps = environment.step(actions_at_random(environment, rng, n))
        assert steps.observation.shape == observation.shape
        assert steps.reward.dtype == np.float64 and steps.terminal.dtype == steps.truncated.dtype == bool
        assert steps.subgoals.dtype == np.int64 and all(len(one) == n for one in vars(steps).values())
        assert not (steps.terminal & steps.truncated).any()
        assert not steps.reward[over].any() and not steps.subgoals[over].any(), "an episode that is over gives 0"
        assert not (over & (steps.terminal | steps.truncated)).any(), "an end is told once"
        over |= steps.terminal | steps.truncated
    assert over.all(), "no episode outlives the limit"
    after = environment.step(np.zeros(n, dtype=np.int64))
    assert not after.reward.any() and not (after.terminal | after.truncated).any()


def test_no_action_takes_a_step_and_is_worse_than_the_best(environment: Environment) -> None:
    environment.reset(SEEDS)
    ended, idle = np.zeros(len(SEEDS), dtype=bool), np.zeros(len(SEEDS))
    for _ in range(environment.limit):
        steps = environment.step(np.full(len(SEEDS), NO_ACTION))
        idle += steps.reward
        ended |= steps.terminal | steps.truncated
    assert ended.all()
    try:
        best, _ = played(environment, SEEDS, lambda one: one.oracle())
    except NoOracle:
        return
    assert (idle <= best + 1e-9).all() and idle.mean() < best.mean()


def test_the_oracle_is_at_least_as_good_as_chance_and_as_an_expert_with_errors(environment: Environment) -> None:
    try:
        environment.reset(SEEDS)
        environment.oracle()
    except NoOracle as error:
        assert environment.name in str(error)
        return
    rng = np.random.default_rng(4)
    best, _ = played(environment, SEEDS, lambda one: one.oracle())
    chance, _ = played(environment, SEEDS, lambda one: actions_at_random(one, rng, len(SEEDS)))
    right, _ = played(environment, SEEDS, lambda one: one.expert({}, rng))
    assert best.mean() > chance.mean() and (best >= chance - 1e-9).all() and np.allclose(best, right)
    for mistake in environment.errors:
        wrong, _ = played(environment, SEEDS, lambda one, mistake=mistake: one.expert({mistake: 1.0}, rng))
        assert wrong.mean() < best.mean(), mistake


def test_an_expert_makes_errors_of_its_catalogue_alone(environment: Environment) -> None:
    rng = np.random.default_rng(5)
    environment.reset(SEEDS)
    with pytest.raises(BadInput, match="no error 'sleeps'"):
        environment.expert({"sleeps": 0.5}, rng)
    if environment.errors:
        name = next(iter(environment.errors))
        with pytest.raises(BadInput, match=r"(?s)1\.5.*0"):
            environment.expert({name: 1.5}, rng)


def test_what_is_told_and_replied_is_made_of_its_words_and_read_back(environment: Environment) -> None:
    vocabulary, rng = tokens.Vocabulary(environment.words), np.random.default_rng(6)
    environment.reset(SEEDS)
    running = np.ones(len(SEEDS), dtype=bool)
    for _ in range(environment.limit):
        actions = actions_at_random(environment, rng, len(SEEDS))
        told, replies = environment.tell(), environment.replies(actions)
        assert environment.tell() == told, "to tell changes nothing"
        turns = [one for one, runs in zip(zip(told, replies, strict=True), running, strict=True) if runs]
        ids, _ = vocabulary.conversation(turns)
        assert vocabulary.text(ids).count(" <agent> ") == len(turns) and all(told for told, _ in turns)
        assert environment.read(replies).tolist() == actions.tolist()
        steps = environment.step(actions)
        running &= ~(steps.terminal | steps.truncated)


def test_replies_that_are_none_are_no_action(environment: Environment) -> None:
    environment.reset(SEEDS[:3])
    told = environment.tell()
    assert environment.read(["", "no such word", told[2]])[:2].tolist() == [NO_ACTION, NO_ACTION]


def test_every_family_and_every_split_has_seeds_and_no_start_is_in_two(environment: Environment) -> None:
    seeds = range(600)
    splits, families = [environment.split(seed) for seed in seeds], [environment.family(seed) for seed in seeds]
    assert set(families) <= set(environment.families) and set(splits) == set(SPLITS)
    assert splits == [environment.split(seed) for seed in seeds]
    counts = Counter(splits)
    assert counts["train"] > counts["test"] >= 10 and counts["train"] > counts["validation"] >= 10
    sides: dict[str, set[str]] = {}
    for text, split in zip(transcripts(environment, seeds), splits, strict=True):
        sides.setdefault(text, set()).add(split)
    assert all(len(found) == 1 for found in sides.values())


def transcripts(environment: Environment, seeds: range) -> list[str]:
    """All that is told in the episode of each seed while the best is done, or where nobody knows it the first action."""
    environment.reset(seeds)
    told = [environment.tell()]
    for _ in range(environment.limit):
        try:
            actions = environment.oracle()
        except NoOracle:
            actions = np.zeros(len(seeds), dtype=np.int64)
        environment.step(actions)
        told.append(environment.tell())
    return [" / ".join(texts) for texts in zip(*told, strict=True)]


def test_further_forms_give_rows_over_its_words(environment: Environment) -> None:
    rng, size = np.random.default_rng(7), len(tokens.SPECIALS) + len(environment.words)
    for form in getattr(environment, "forms", {}):
        rows = environment.rows(form, SEEDS, rng)  # type: ignore[attr-defined]
        assert len(rows) == len(SEEDS)
        for ids, trained in rows:
            assert len(ids) == len(trained) and any(trained) and 0 <= min(ids) <= max(ids) < size
