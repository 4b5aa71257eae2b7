"""A small frozen world, and a way to run the method on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasks.contract import schemas, tables
from tasks.contract.agent import Agent
from tasks.contract.client import Client
from tasks.contract.context import Context, in_order
from tasks.generate import Inputs, apigen_mt
from tasks.players import acting, roles
from tasks.worlds.api.frozen import freeze_world, load
from tasks.worlds.api.loading import world_class
from tasks.worlds.api.runtime import World
from tests.playing import playing

ERRORS = {
    "generator": {
        "cut_off": 0.1,
        "invented_id": 0.1,
        "other_customer": 0.1,
        "dropped_wish": 0.1,
        "unsaid_detail": 0.1,
        "tool_talk": 0.1,
    },
    "agent": {"forgets_second_request": 0.3, "confuses_two_ids": 0.2, "wrong_total": 0.3},
}
"""Rates at which every reason for a refusal shows up in a few dozen blueprints."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the retail world, 60 customers."""
    place = tmp_path_factory.mktemp("worlds")
    freeze_world(World.build(world_class("tasks.worlds.library.retail:Retail"), 60, 0), place / "retail")
    return place


@pytest.fixture
def world(folder: Path) -> World:
    """The retail world."""
    return load(folder / "retail")


@dataclass(frozen=True)
class Made:
    """What a run left."""

    figures: dict[str, Any]
    blueprints: list[dict[str, Any]]
    trajectories: list[dict[str, Any]]
    files: dict[str, bytes]

    @property
    def accepted(self) -> dict[str, dict[str, Any]]:
        """Accepted blueprints by id."""
        return {row["problem_id"]: row for row in self.blueprints if row["status"] == "accepted"}


def through_json(name: str, work: Callable[..., Any], items: Sequence[Any], shard_size: int) -> Iterator[Any]:
    """Shards whose results go through JSON text, as they do when they are kept."""
    for result in in_order(name, work, items, shard_size):
        yield json.loads(json.dumps(result))


Make = Callable[..., Made]


@pytest.fixture
def make(folder: Path, tmp_path: Path) -> Make:
    """make(errors={role: {error: rate}}, clients={role: Client}, seed=0, shards=through_json, pinned=None, **params) -> Made."""
    count = iter(range(1000))

    def run(
        errors: Mapping[str, Mapping[str, float]] | None = None,
        clients: Mapping[str, Client] | None = None,
        seed: int = 0,
        shards: Callable[..., Iterator[Any]] = through_json,
        pinned: Path | None = None,
        way: Callable[[Agent], Agent] = acting.plain,
        **params: Any,
    ) -> Made:
        out = tmp_path / f"out{next(count)}"
        out.mkdir()
        scripted = {role: {"backend": "scripted", "errors": dict(rates)} for role, rates in (errors or {}).items()}
        known = roles.maker(scripted, folder, seed)

        def role(name: str, world: str = "") -> Client:
            return (clients or {}).get(name) or known(name, world)

        ctx = Context(seed=seed, out=out, scratch=tmp_path, shards=shards, **playing(role, way))
        values = {"problems": 30, "round_size": 10, "shard_size": 7, "attempts": 2, "user_best_of": 1, **params}
        figures = apigen_mt.run(Inputs(folder, pinned), apigen_mt.Params(**values), ctx)
        return Made(
            json.loads(json.dumps(figures)),
            list(tables.read_rows(out / "blueprints.parquet", schemas.BLUEPRINT)),
            list(tables.read_rows(out / "trajectories.parquet", schemas.TRAJECTORY)),
            {path.name: path.read_bytes() for path in sorted(out.iterdir())},
        )

    return run
