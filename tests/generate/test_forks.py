"""Conversations that are gone back into: what a fork has in common with its source, and what not; two methods of generate that need it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.contract import rows, schemas, tables
from tasks.contract.client import Message, Request
from tasks.contract.context import Context
from tasks.contract.params import BadInput
from tasks.generate import Inputs
from tasks.players import scripted
from tasks.players.checkpoint_agent import CheckpointAgent
from tasks.players.client_agent import ClientAgent
from tasks.players.roles import maker
from tasks.players.trivial.constant import REFUSAL, refuses
from tasks.worlds.api.frozen import freeze_world
from tasks.worlds.api.play import Game, play
from tests.generate.conftest import through_json
from tests.generate.restarts import Params, places, run
from tests.generate.tree import search
from tests.playing import NO_PROMPT, checkpoint_agent, playing
from tests.rollout import tiny
from tests.rollout.test_rollout import human, jobs, problems, teacher, world


def writing() -> Any:
    """A problem with two writes at least, whose conversation has several turns."""
    return next(problem for problem in problems() if problem.n_writes > 1)


def played(**how: Any) -> tuple[Game, Any]:
    game = Game(world(), seed=1, **how)
    talk = game.open(writing())
    game.play([talk], teacher(), human())
    return game, talk


@pytest.mark.parametrize("snapshots", [True, False])
def test_a_fork_has_the_source_before_it_and_the_state_that_the_calls_left(snapshots: bool) -> None:
    """The teacher makes no noise, so whoever goes on from any turn ends in the source's state, by the same calls; and before that the
    fork's state is that of the calls so far on a fresh world."""
    game, source = played(snapshots=snapshots)
    before = json.dumps(source.played.messages)
    assert source.played.outcome.reward == 1 and source.steps > 4
    for turn in range(source.steps):
        fork = game.fork(source, turn)
        calls = [action for action, _ in fork.played.calls]
        assert fork.played.messages == source.played.messages[: len(fork.played.messages)]
        assert all(mine is theirs for mine, theirs in zip(fork.played.messages, source.played.messages, strict=False)), (
            "shared, not copied"
        )
        assert fork.world.state_hash() == world().replay(calls).state_hash and fork.steps == turn
        (again,) = game.play([fork], teacher(), human())
        assert again.outcome.reward == 1 and again.outcome.final_state_hash == source.played.outcome.final_state_hash
        assert (again.branch, again.trial) == (f"{turn}.0", 0)
    assert json.dumps(source.played.messages) == before, "the source stays as it is"


def test_rows_that_no_fork_has_changed_are_one_object() -> None:
    """Law of the state: a copy costs the rows that changed, so ten thousand forks hold ten thousand short lists of changes."""
    game, source = played(snapshots=True)
    one, two = game.fork(source), game.fork(source)
    assert one.world.state is not two.world.state and one.world.shared is two.world.shared


def test_played_in_parts_it_is_what_it_is_in_one_go() -> None:
    whole = play(world(), jobs(), teacher(), human(), seed=1)
    game = Game(world(), seed=1)
    talks = [game.open(problem, trial) for problem, trial in jobs()]
    for until in range(1, 40):
        game.play(talks, teacher(capacity=3), human(), until=until)
    assert [talk.played for talk in talks] == whole


def test_the_noise_of_forks_is_their_own_and_the_same_each_time() -> None:
    def branches() -> list[list[int]]:
        agent = checkpoint_agent(tiny.model(end=12.0), tiny.tokenizer(), NO_PROMPT, rows=8, temperature=1.0, max_turn_tokens=24)
        game = Game(world(), seed=1)
        root = game.open(writing())
        game.play([root], agent, human(), until=1)
        forks = [game.fork(root, 0) for _ in range(4)]
        game.play(forks, agent, human(), until=1)
        return [list(one.played.turns[0]["ids"]) for one in (root, *forks)]

    ids = branches()
    assert len({tuple(one) for one in ids}) == 5 and branches() == ids


def test_a_checkpoint_goes_on_from_the_tokens_it_has_said() -> None:
    """A fork of a checkpoint's conversation reads the ids of before as they are (law 7), in a row of its own: the next turn of a fork
    with the source's seeds is the source's, token by token. Another player's tokens are no part of it."""

    def agent() -> CheckpointAgent:
        return checkpoint_agent(tiny.model(end=12.0), tiny.tokenizer(), NO_PROMPT, rows=16, temperature=1.0, max_turn_tokens=24)

    game = Game(world(), seed=2, max_steps=4)
    talks = [game.open(problem, trial) for problem, trial in jobs()]
    game.play(talks, agent(), human())
    source = next(talk for talk in talks if len(talk.played.turns) > 1)
    fork = game.fork(source, 1)
    fork.seeds = source.seeds
    game.play([fork], agent(), human(), until=2)
    assert [turn["first"] for turn in fork.played.turns] == [True, False]
    for mine, theirs in zip(fork.played.turns, source.played.turns, strict=False):
        assert (mine["prompt_ids"], mine["ids"]) == (theirs["prompt_ids"], theirs["ids"])
        assert mine["logprobs"] == pytest.approx(theirs["logprobs"], abs=1e-4)
    other = game.fork(source, 1)
    game.play([other], teacher(), human(), until=2)
    assert (
        other.played.turns == [] and other.played.messages[:2] == source.played.messages[:2] and other.played.agent == "scripted-agent"
    )


def test_the_human_says_another_line() -> None:
    """A human that says digits of its own is taken back before its last line; the agent's turn follows another line."""
    wrong = scripted.client("human", world(), {"wrong_detail": 1.0}, 0)
    game = Game(world(), seed=1)
    source = game.open(writing())
    game.play([source], teacher(), wrong, until=1)
    fork = game.fork(source, 0, again="human")
    assert fork.played.messages == [] and fork.to_move == "human"
    game.play([fork], teacher(), human(), until=1)
    assert fork.played.messages[0]["role"] == "user" and fork.played.messages[0] != source.played.messages[0]
    _, whole = played()
    with pytest.raises(ValueError, match=r"turn 99: the conversation about .* has turns 0 to"):
        game.fork(whole, 99)


def test_a_row_is_taken_up_and_forked() -> None:
    """Through a file and back: the fork of a row is the fork of what was played."""
    game, source = played()
    row = rows.trajectory_row(source.played)
    back = game.take_up(rows.trajectory_of(row, source.played.problem))
    one, two = game.fork(back, 3), game.fork(source, 3)
    assert one.played.messages == two.played.messages and one.world.state_hash() == two.world.state_hash()
    (first,) = game.play([one], teacher(), human())
    assert rows.trajectory_row(first)["traj_id"] == row["traj_id"] + "-3.0"
    assert rows.trajectory_of(rows.trajectory_row(first), source.played.problem).branch == "3.0"


def test_worlds_that_cannot_be_copied_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    game, source = played()
    action, result = source.played.calls[0]
    source.played.calls[0] = (action, result._replace(content="another answer"))
    with pytest.raises(BadInput, match=f"world retail: its state cannot be copied: {action.name} answered .*'another answer' before"):
        game.fork(source, source.steps - 1)
    live = world().fork()
    live.copies = False
    with pytest.raises(BadInput, match=r"world retail: its state cannot be copied, .*COPIES = False"):
        Game(live, seed=1).fork(source, 0)


def test_restarts_from_inside_failed_expert_conversations(tmp_path: Path) -> None:
    """An expert that always refuses fails seven of seven; from three places in each the present agent, which makes no errors, wins. By
    hand: of 4 turns and 3 states the places are 0, 1 and 2; of 2 turns 0 and 1."""
    assert (places(4, 3), places(2, 3), places(10, 3)) == ([0, 1, 2], [0, 1], [0, 3, 6])
    freeze_world(world(), tmp_path / "worlds" / "retail")
    done: list[dict[str, bytes]] = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        ctx = Context(3, tmp_path / name, tmp_path, shards=through_json, **playing(maker({}, tmp_path / "worlds", 0)))
        figures = run(Inputs(tmp_path / "worlds"), Params(), ctx, refuses())
        done.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert done[0] == done[1]
    rounds = figures["won"]["retail"]
    assert rounds[0] == [0, 7] and rounds[1][0] > 0 and rounds[1][1] > 7
    table = list(tables.read_rows(tmp_path / "one" / "trajectories.parquet", schemas.TRAJECTORY))
    assert len({row["traj_id"] for row in table}) == len(table) == sum(count for _, count in rounds)
    expert = {row["problem_id"]: row for row in table if row["agent"] == "always_refuses"}
    for row in table[7:]:
        turn = int(row["traj_id"].rsplit("/", 1)[1].split(".")[0])
        prefix = [message["role"] for message in row["messages"]].index("assistant") if turn == 0 else 2 * turn + 1
        assert row["messages"][:prefix] == expert[row["problem_id"]]["messages"][:prefix] and row["agent"] == "scripted-agent"


class Moody:
    """The world's scripted agent, which in one turn of eight refuses instead: which, the turn's seed decides."""

    name, revision = "moody", "1"

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        able = scripted.client("agent", world(), {}, 0).complete(requests)
        return [
            {"role": "assistant", "content": REFUSAL} if one.seed % 8 == 0 else turn for one, turn in zip(requests, able, strict=True)
        ]


def test_a_tree_of_two_levels() -> None:
    """Nine leaves of an agent that refuses by chance; each has its parent's turn, and a node is the mean of its leaves. Conversations
    share the first line of the human's, which was asked for once."""
    agent = ClientAgent(Moody(), NO_PROMPT)
    root = search(world(), writing(), agent, human(), 3, seed=4)
    leaves = [leaf for node in root.children for leaf in node.children]
    assert len(leaves) == 9 and len({leaf.talk.key for leaf in leaves}) == 9
    assert all(leaf.talk.played.messages[0] is root.talk.played.messages[0] for leaf in leaves)
    for node in root.children:
        assert all(leaf.talk.played.messages[:2] == node.talk.played.messages[:2] for leaf in node.children)
        assert node.worth == sum(leaf.worth for leaf in node.children) / 3
    assert root.worth == pytest.approx(sum(leaf.worth for leaf in leaves) / 9) and 0 < root.worth < 1
    again = search(world(), writing(), agent, human(), 3, seed=4)
    assert [replace(leaf.talk.played) for node in again.children for leaf in node.children] == [leaf.talk.played for leaf in leaves]
