"""A way of acting in all three rooms that play, with a script behind it and with a checkpoint: it asks twice and keeps the longer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from tasks.contract import schemas, tables
from tasks.contract.agent import Agent
from tasks.contract.client import Message, Request
from tasks.evaluate import Inputs as EvaluateInputs
from tasks.evaluate.pass_k import Params as EvaluateParams
from tasks.evaluate.pass_k import run as evaluate
from tasks.generate import Inputs as GenerateInputs
from tasks.generate import apigen_mt
from tasks.players.client_agent import ClientAgent
from tasks.players.roles import maker
from tasks.rl import Inputs as RlInputs
from tasks.rl.core import loop
from tasks.rl.grpo import Params as GrpoParams
from tasks.rl.grpo import hooks
from tasks.worlds.api.frozen import freeze_world
from tasks.worlds.api.play import play
from tests.agents.longer import Longer, Params, agent
from tests.playing import NO_PROMPT, checkpoint_agent, playing
from tests.rl.micro import LOOP, world
from tests.rollout import tiny
from tests.rollout.test_rollout import human, jobs
from tests.rollout.test_rollout import world as retail


def way(made: list[Longer]) -> Any:
    """The way, and what it made: to count what was asked."""

    def act(player: Agent) -> Longer:
        made.append(agent(player, Params()))
        return made[-1]

    return act


class Twice:
    """A client whose answers differ by the seed: a word, or a sentence."""

    name, revision = "twice", "1"

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        return [
            {"role": "assistant", "content": ("No." if one.seed % 2 else "Please, anything else?") + f" {one.seed}"} for one in requests
        ]


def test_the_longer_of_two_answers_is_kept() -> None:
    """By hand: of the answers "No. N" and "Please, anything else? N" (N the seed) the longer text is always said."""
    act = agent(ClientAgent(Twice(), NO_PROMPT), Params())
    played = play(retail(), jobs(), act, human(), seed=1)
    said = [message["content"] for talk in played for message in talk.messages if message["role"] == "assistant"]
    plain = play(retail(), jobs(), ClientAgent(Twice(), NO_PROMPT), human(), seed=1)
    before = [message["content"] for talk in plain for message in talk.messages if message["role"] == "assistant"]
    assert act.answers == 2 * len(said) and act.name == "twice"
    assert (
        sum(line.startswith("Please") for line in said) / len(said)
        > 0.6
        > sum(line.startswith("Please") for line in before) / len(before)
    )


def test_what_a_checkpoint_said_and_did_not_say_stays_apart_token_by_token() -> None:
    """The ids of a conversation are one sequence in which only kept turns stand: a whole prompt, then what came since, turn by turn; and
    they are those that a try would have read had it said the kept turn itself."""
    inner = checkpoint_agent(tiny.model(end=12.0), tiny.tokenizer(), NO_PROMPT, rows=8, temperature=1.0, max_turn_tokens=24)
    played = play(retail(), jobs(), agent(inner, Params()), human(), seed=2, max_steps=4)
    several = [talk for talk in played if len(talk.turns) > 1]
    assert several and not any(turn["first"] for talk in played for turn in talk.turns[1:])
    for talk in several:
        text = "".join(tiny.tokenizer().decode([*turn["prompt_ids"], *turn["ids"]]) for turn in talk.turns)
        assert text.count("<|im_start|>system") == 1 and text.count("<|im_start|>assistant") == len(talk.turns)
        replies = [message["content"] for message in talk.messages if message["role"] == "assistant"]
        for one, two in pairwise(replies):
            assert text.index(one) <= text.rindex(two)


def test_it_plays_in_generate(tmp_path: Path) -> None:
    freeze_world(world(), tmp_path / "worlds" / "retail")
    (tmp_path / "out").mkdir()
    made: list[Longer] = []
    from tasks.contract.context import Context
    from tests.generate.conftest import through_json  # its shards go through JSON

    ctx = Context(0, tmp_path / "out", tmp_path, shards=through_json, **playing(maker({}, tmp_path / "worlds", 0), way(made)))
    figures = apigen_mt.run(GenerateInputs(tmp_path / "worlds"), apigen_mt.Params(problems=7, attempts=1, recombine=0), ctx)
    turns = sum(row["n_agent_steps"] for row in tables.read_rows(tmp_path / "out" / "trajectories.parquet", schemas.TRAJECTORY))
    assert sum(one.answers for one in made) == 2 * turns > 0 and figures["won_per_conversation"] == 1.0


def test_it_plays_in_rl_and_in_evaluate(tmp_path: Path) -> None:
    freeze_world(world(), tmp_path / "worlds" / "retail")
    tiny.saved(tmp_path / "sft" / "model", layers=1, end=6.0)
    made: list[Longer] = []
    from tasks.contract.context import Context

    def context(name: str) -> Context:
        (tmp_path / name / "out").mkdir(parents=True)
        players = playing(maker({}, tmp_path / "worlds", 0), way(made))
        return Context(5, tmp_path / name / "out", tmp_path / name / "scratch", **players)

    one = LOOP.model_copy(update={"steps": 1, "max_lost": 1.0, "min_trained": 0.0, "validation_problems": 7, "screen_trials": 1})
    ctx = context("rl")
    figures = loop.run(RlInputs(tmp_path / "worlds", tmp_path / "sft", "retail"), one, hooks(GrpoParams(), ctx), ctx)
    assert figures["steps"] == 1 and made[0].answers > 0
    made.clear()
    small = EvaluateParams(problems=7, gate_problems=0, trials=1, max_steps=5, max_turn_tokens=6, rows=14, resamples=100, max_lost=1.0)
    inputs = EvaluateInputs(tmp_path / "worlds", {"sft": tmp_path / "sft" / "model"}, "sft", "abc.dir")
    said = evaluate(inputs, small, context("evaluate"))
    assert said["trials"] == 7 + 4 * 7 and made[0].answers > 0 and made[0].capacity == 7
