"""Two small worlds with conversations played by their own scripts, as the folders that critique and filter receive."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.contract import rows, schemas, tables
from tasks.contract.client import Message, Request
from tasks.contract.problem import Problem
from tasks.players.client_agent import ClientAgent
from tasks.worlds.api import play as rollout
from tasks.worlds.api.frozen import freeze_world
from tasks.worlds.api.problem_making import draw_problems
from tasks.worlds.api.runtime import World
from tasks.worlds.library.airline import Airline
from tasks.worlds.library.retail import Retail

ERRORS = {"forgets_second_request": 0.2, "skips_confirmation": 0.2, "wrong_total": 0.2, "needless_reads": 0.1}


class Script:
    """A scripted player of the world as a client."""

    name = revision = "script"

    def __init__(self, world: World, errors: dict[str, float] | None = None) -> None:
        self.world, self.errors = world, errors

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        play = self.world.scripts
        return [play.human(request) if self.errors is None else play.agent(request, self.errors) for request in requests]


def play(world: World, problems: Sequence[Problem], errors: dict[str, float]) -> list[dict[str, Any]]:
    """Rows of TRAJECTORY: one conversation a problem, between the world's scripted agent with these errors and its human."""
    agent = ClientAgent(Script(world, errors), {"tools": "none", "policy": "none"}, name="teacher")
    played = rollout.play(world, [(problem, 0) for problem in problems], agent, Script(world), seed=0)
    return [rows.trajectory_row(talk) for talk in played]


def play_into(folder: Path, count: int = 40, errors: dict[str, float] | None = None) -> tuple[Path, Path]:
    """Folders (worlds, generate): two worlds, `count` conversations of each one's train split and count // 6 of validation."""
    worlds, generate = folder / "worlds", folder / "generate"
    problems: list[Problem] = []
    played: list[dict[str, Any]] = []
    for cls in (Retail, Airline):
        world = World.build(cls, 60, 0)
        freeze_world(world, worlds / world.name)
        own = [*draw_problems(world, "train", count, 0), *draw_problems(world, "validation", count // 6, 0)]
        played += play(world, own, ERRORS if errors is None else errors)
        problems += own
    tables.write_rows(generate / "trajectories.parquet", schemas.TRAJECTORY, played)
    tables.write_rows(generate / "blueprints.parquet", schemas.BLUEPRINT, map(_blueprint, problems))
    return worlds, generate


def _blueprint(problem: Problem) -> dict[str, Any]:
    empty: dict[str, Any] = {"walk": [], "policy_ids": [], "source_ids": [], "judge_scores": []}
    return {**rows.problem_row(problem), **empty, "status": "accepted"}
