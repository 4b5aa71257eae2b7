"""An environment as a world: what it tells and how it grades, against the environment itself; alone, frozen and gone back into."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from tasks.contract import rows
from tasks.contract.client import Message, Request
from tasks.contract.params import BadInput
from tasks.contract.trajectory import Trajectory
from tasks.environments import NO_ACTION, Environment, as_world, episodes, frozen
from tasks.players import scripted
from tasks.players.client_agent import ClientAgent
from tasks.worlds.api import frozen as worlds
from tasks.worlds.api.play import Game, play
from tasks.worlds.api.problem_making import draw_problems, user_context
from tasks.worlds.api.runtime import World

SIMPLE: Mapping[str, Mapping[str, Any]] = {
    "maps": {"maps": 2, "symbols": 5, "questions": 3},
    "arithmetic": {"tries": 2},
    "grid": {"size": 4, "things": 2, "limit": 6},
}
PARTS = {"size": 4, "things": 2, "rooms": 2, "locked": True, "reward": "parts", "limit": 30}
NOBODY = scripted.client("human_critic", None, {}, 0)
"""A client that would fail if it were asked for a line of a human."""


class Told:
    """A client whose turn is what `choose` makes of the conversation's replies so far and of what was told last."""

    name, revision = "told", ""

    def __init__(self, choose: Callable[[Sequence[str], str], str]) -> None:
        self.choose = choose

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        said = [[str(one["content"]) for one in request.messages if one["role"] == "assistant"] for request in requests]
        last = [str(request.messages[-1]["content"]) for request in requests]
        return [{"role": "assistant", "content": self.choose(*one)} for one in zip(said, last, strict=True)]


def talks(world: World, count: int, choose: Callable[[Sequence[str], str], str]) -> list[Trajectory]:
    jobs = [(problem, 0) for problem in draw_problems(world, "train", count, 0)]
    return play(world, jobs, ClientAgent(Told(choose), None), NOBODY, seed=0)


@pytest.mark.parametrize("kind", SIMPLE)
def test_a_conversation_is_an_episode(kind: str) -> None:
    """Whatever is replied, turns and rewards are those of the environment itself, played with the same actions all at once."""
    environment = frozen.make(kind, SIMPLE[kind])
    world, rng = as_world.world("here", environment), np.random.default_rng(0)
    environment.reset([7])
    words = [environment.replies(np.array([action]))[0] for action in range(environment.actions)]
    plan = {step: words[int(rng.integers(len(words)))] for step in range(environment.limit)}
    played = talks(world, 6, lambda said, _: plan[len(said)])
    seeds = [one.problem.intent["seed"] for one in played]
    step = iter(range(environment.limit))
    own = episodes.play(environment, seeds, lambda one: one.read([plan[next(step)]]).repeat(6))
    for place, talk in enumerate(played):
        assert talk.outcome is not None and talk.stop == "user_stop" and talk.human == "environment"
        assert talk.outcome.reward == talk.outcome.value == pytest.approx(own.total[place])
        told = [str(message["content"]) for message in talk.messages if message["role"] == "user"]
        assert told == [told for told, _ in own.turns[place]] and len(talk.outcome.rewards) == len(told)
        assert talk.outcome.solved == episodes.won(environment, [seeds[place]], own.total[[place]])[0]
        assert talk.outcome.solved == (talk.outcome.blame == "") and talk.outcome.about_agent


def test_the_best_replies_solve_it_and_subgoals_are_told() -> None:
    environment = frozen.make("grid", PARTS)
    world = as_world.world("grid", environment)
    problem = draw_problems(world, "test", 1, 0)[0]
    turns = episodes.play(environment, [problem.intent["seed"]], episodes.by_oracle).turns[0]
    (talk,) = play(world, [(problem, 0)], ClientAgent(Told(lambda said, _: turns[len(said)][1]), None), NOBODY, seed=0)
    assert talk.outcome is not None and talk.outcome.solved and talk.outcome.reward == pytest.approx(1.0)
    assert sum(talk.outcome.subgoals) >= 3 and talk.outcome.blame_reason == ""
    assert sum(one > 0 for one in talk.outcome.rewards) > 1, "parts of the reward come on the way"


def test_frozen_it_is_the_same_world(tmp_path: Path) -> None:
    environment = frozen.make("maps", SIMPLE["maps"])
    as_world.freeze(environment, tmp_path / "mine")
    world, found = as_world.world("mine", environment), worlds.load(tmp_path / "mine")
    assert (found.name, found.families, found.turns) == ("mine", environment.families, 3) == (world.name, world.families, world.turns)
    assert draw_problems(found, "test", 9, 3) == draw_problems(world, "test", 9, 3)
    assert list(worlds.load_all(tmp_path)) == list(frozen.load_all(tmp_path)) == ["mine"]


def test_problems_are_seeds_of_the_split_families_in_turn() -> None:
    environment = frozen.make("maps", SIMPLE["maps"])
    world = as_world.world("maps", environment)
    problems = draw_problems(world, "validation", 10, 4)
    assert [one.family for one in problems] == ["map_0", "map_1"] * 5 and len({one.problem_id for one in problems}) == 10
    assert {environment.split(one.intent["seed"]) for one in problems} == {"validation"}
    assert [environment.family(one.intent["seed"]) for one in problems] == [one.family for one in problems]
    assert draw_problems(world, "validation", 4, 4) == problems[:4]
    assert draw_problems(world, "validation", 4, 5) != problems[:4]


def test_one_can_go_back_into_an_episode() -> None:
    environment = frozen.make("maps", SIMPLE["maps"])
    world = as_world.world("maps", environment)
    game = Game(world, seed=0)
    talk = game.open(draw_problems(world, "train", 1, 0)[0])
    wrong = ClientAgent(Told(lambda said, _: "nothing"), None)
    (lost,) = game.play([talk], wrong, NOBODY)
    turns = episodes.play(environment, [lost.problem.intent["seed"]], episodes.by_oracle).turns[0]
    (better,) = game.play([game.fork(talk, 1)], ClientAgent(Told(lambda said, _: turns[len(said)][1]), None), NOBODY)
    assert lost.outcome is not None and better.outcome is not None and lost.outcome.reward == 0
    assert better.outcome.reward == pytest.approx(2 / 3) and better.messages[:2] == lost.messages[:2]


def test_a_turn_that_breaks_the_conversation_off_is_no_reply() -> None:
    environment = frozen.make("maps", SIMPLE["maps"])
    world = as_world.world("maps", environment)
    problem = draw_problems(world, "train", 1, 0)[0]
    turns = episodes.play(environment, [problem.intent["seed"]], episodes.by_oracle).turns[0]
    messages = [message for told, reply in turns[:2] for message in (_user(told), _agent(reply))]
    for stop, value in (("parse_error", 1 / 3), ("max_tokens", 1 / 3), ("max_steps", 2 / 3)):
        outcome = world.grade(Trajectory(problem, 0, messages, stop=stop), world)
        assert outcome.value == pytest.approx(value) and outcome.blame == "agent" and stop in outcome.blame_reason
    assert not world.grade(Trajectory(problem, 0, messages, stop="human_refused"), world).about_agent


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _agent(text: str) -> Message:
    return {"role": "assistant", "content": text}


def test_where_nobody_knows_the_best_more_than_nothing_is_won() -> None:
    params = {"size": 4, "things": 2, "moves": "slippery", "goals": ["bring"], "limit": 4}
    world = as_world.world("grid", frozen.make("grid", params))
    played = talks(world, 3, lambda said, _: "wait")
    assert [one.outcome.blame_reason for one in played if one.outcome] == ["brought 0, ended by user_stop"] * 3


def test_kept_points_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for two points, conversations that are played side by side are played from their seeds again and again."""
    monkeypatch.setattr(as_world, "KEPT", 2)
    environment: Environment = frozen.make("grid", SIMPLE["grid"])
    few = talks(as_world.world("grid", environment), 5, lambda said, _: ("north", "east", "wait")[len(said) % 3])
    monkeypatch.undo()
    many = talks(as_world.world("grid", environment), 5, lambda said, _: ("north", "east", "wait")[len(said) % 3])
    assert [(one.messages, one.outcome) for one in few] == [(one.messages, one.outcome) for one in many]
    assert environment.read(["no such word"]) == NO_ACTION


def test_what_an_environment_cannot_is_told() -> None:
    world = as_world.world("grid", frozen.make("grid", SIMPLE["grid"]))
    with pytest.raises(BadInput, match=r"world grid: a conversation takes up to 6 turns, and 5 are allowed. Raise what the step"):
        Game(world, seed=0, max_steps=5)
    with pytest.raises(BadInput, match="is an environment, without rows of which problems could be made"):
        user_context(world, Random(0), "train")
    with pytest.raises(BadInput, match="scripted expert knows its state, which no conversation tells"):
        scripted.client("agent", world, {"stray": 0.1}, 0).complete([Request([_user("you r0 c0")])])
    with pytest.raises(BadInput, match=r"no row of conversations holds that. `generate.method: expert_rows`"):
        rows.trajectory_row(talks(world, 1, lambda said, _: "wait")[0])
