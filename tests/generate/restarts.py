"""A method of the tests for the room generate: failed conversations of an expert are gone back into and played on by an agent, in rounds.

What EEF needs (https://arxiv.org/abs/2504.13145): of each failed conversation M states, equally spaced, from which the agent tries again. Round 0
is the expert's; round r restarts what no round before has won. Rounds are shards of their own names, so that a killed run goes on with the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from tasks.contract import params as base
from tasks.contract import rows, schemas, tables
from tasks.contract.agent import Agent
from tasks.contract.context import Context
from tasks.contract.problem import Problem
from tasks.generate import Inputs
from tasks.worlds.api.frozen import load_all
from tasks.worlds.api.play import Game
from tasks.worlds.api.problem_making import draw_problems
from tasks.worlds.api.runtime import World


class Params(base.Params):
    """Sizes."""

    problems: int = Field(7, ge=1, description="problems of each world")
    states: int = Field(3, ge=1, description="M, places in a failed conversation from which it is played on")
    rounds: int = Field(2, ge=1, description="times that the agent tries what is still lost")


def places(turns: int, states: int) -> list[int]:
    """M of the places 0 .. turns - 1, equally spaced, the first always; no place twice."""
    return sorted({number * turns // states for number in range(states)})


def run(inputs: Inputs, params: Params, ctx: Context, expert: Agent) -> dict[str, Any]:
    """Leaves trajectories.parquet; returns for each round how many conversations were won, and from where."""
    won: dict[str, list[list[int]]] = {}
    with tables.Sink(ctx.out / "trajectories.parquet", schemas.TRAJECTORY) as sink:
        for name, world in load_all(inputs.worlds).items():
            problems = draw_problems(world, "train", params.problems, ctx.seed_for("problems", name))
            lost = [problem.problem_id for problem in problems]
            first: list[dict[str, Any]] = []
            for number in range(params.rounds + 1):
                todo = [(number, place) for place in range(len(problems)) if problems[place].problem_id in lost]
                before = {row["problem_id"]: row for row in first}
                work = _round(world, problems, before, params, ctx, expert)
                played = [row for shard in ctx.shards(f"round-{name}-{number}", work, todo, 4) for row in shard]
                first = first or played
                for row in played:
                    sink.add(row)
                lost = [one for one in lost if not any(row["reward"] for row in played if row["problem_id"] == one)]
                won.setdefault(name, []).append([sum(row["reward"] for row in played), len(played)])
    return {"won": won}


def _round(world: World, problems: Sequence[Problem], before: dict[str, Any], params: Params, ctx: Context, expert: Agent) -> Any:
    def work(shard: Sequence[Any]) -> list[dict[str, Any]]:
        number = shard[0][0]
        game = Game(world, seed=ctx.seed_for("round", number))
        if number == 0:
            talks = [game.open(problems[place]) for _, place in shard]
            return [rows.trajectory_row(one) for one in game.play(talks, expert, ctx.human(world.name))]
        talks = []
        for _, place in shard:
            source = game.take_up(rows.trajectory_of(before[problems[place].problem_id], problems[place]))
            source.played.branch = f"round{number}"
            talks += [game.fork(source, turn) for turn in places(source.steps, params.states)]
        return [rows.trajectory_row(one) for one in game.play(talks, ctx.agent(world.name), ctx.human(world.name))]

    return work
