"""The stub that plays roles: what it drafts for APIs that it has never seen is proven by execution, and played to the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.contract import schemas, tables
from tasks.contract.context import Context
from tasks.generate import Inputs, apigen_mt
from tasks.players.stand_in import StandIn
from tasks.worlds.adapters import from_object
from tasks.worlds.api.frozen import freeze_world
from tasks.worlds.api.loading import world_class
from tasks.worlds.api.runtime import World
from tests.playing import playing


class Bank:
    """Accounts by number, and numbers that are no ids."""

    def __init__(self) -> None:
        self.accounts = {f"A{n}": {"owner": f"u{n % 4}", "cents": 100 * n, "open": n % 3 > 0} for n in range(12)}
        self.people = {f"u{n}": {"name": f"Ada {n}"} for n in range(4)}

    def look_at(self, account: str) -> dict[str, Any]:
        """An account."""
        return dict(self.accounts[account])

    def move(self, source_account: str, account: str, cents: int) -> str:
        """Move money."""
        if self.accounts[source_account]["cents"] < cents:
            raise ValueError("not enough")
        self.accounts[source_account]["cents"] -= cents
        self.accounts[account]["cents"] += cents
        return "moved"

    def close(self, account: str) -> str:
        """Close an account that is open."""
        if not self.accounts[account]["open"]:
            raise ValueError("closed already")
        self.accounts[account]["open"] = False
        return "closed"


class BankWorld(from_object(Bank, name="bank", policy="Be kind.", writes=("move", "close"), users="people")):  # type: ignore[misc]
    """The world of it."""


def role(name: str, world: str = "") -> StandIn:
    if "/" in name:
        raise LookupError(name)
    return StandIn()


@pytest.mark.parametrize(
    ("address", "writes"),
    [("tests.worlds.kiosk:Adapted", {"cancel_order"}), ("tests.players.test_stand_in:BankWorld", {"move", "close"})],
)
def test_what_it_drafts_is_proven_and_won(address: str, writes: set[str], tmp_path: Path) -> None:
    world = World.build(world_class(address, ("tests",)), 3, 0, address)
    freeze_world(world, tmp_path / "worlds" / world.name, ("tests",))
    ctx = Context(seed=1, out=tmp_path / "out", scratch=tmp_path / "scratch", **playing(role))
    for folder in (ctx.out, ctx.scratch):
        folder.mkdir()
    figures = apigen_mt.run(Inputs(tmp_path / "worlds"), apigen_mt.Params(problems=24, attempts=1, user_best_of=2), ctx)
    assert figures["base"]["accepted"] >= 12, figures["base"]
    assert figures["conversations"]["won"] >= 0.9 * figures["conversations"]["played"] > 0
    rows = list(tables.read_rows(ctx.out / "blueprints.parquet", schemas.BLUEPRINT))
    called = {call["name"] for row in rows if row["status"] == "accepted" for call in row["actions"]}
    assert called >= writes, "what needs luck with the state is found too"
