"""Freeze worlds into one artifact: each world's tools, policy, tables, splits and the hash of its code, wherever that lies.

All later stages read worlds from this artifact, so that a change of a tool, a rule, a row or a phrase is a change of their input.
Cost: linear in the number of rows; a thousand users take about a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field

from tasks.contract import params as base
from tasks.contract.context import Context
from tasks.contract.params import BadInput
from tasks.worlds.api.calls import ANSWER
from tasks.worlds.api.frozen import freeze_world
from tasks.worlds.api.loading import BUILT_IN, world_class
from tasks.worlds.api.runtime import World

TITLE = "Freeze the worlds"
PAPER = ""
SLUG = ""


@dataclass(frozen=True)
class Inputs:
    """The worlds stage is the first; it has no inputs."""


class Params(base.Params):
    """Which worlds, and how large."""

    modules: list[str] = Field(
        list(BUILT_IN), min_length=1, description="worlds as 'package.module:Class'; see tasks/worlds/api/runtime.py for what one has"
    )
    size: int = Field(200, ge=3, le=20_000, description="users of each world; ours: 140 for training give some 10,000 problems")
    longest_answer: int = Field(
        ANSWER,
        ge=1000,
        le=10_000_000,
        description="characters of a tool's answer in every play of these worlds; ours: some 8,000 tokens. The rest of a longer one is "
        "cut, and the answer says so",
    )
    allow: list[str] = Field([], description="top-level packages outside the project folder from which worlds may be loaded")


def check(params: Params) -> None:
    """Raise BadInput for a module that cannot be loaded, or two worlds of one name."""
    _classes(params)


def names(params: Params) -> list[str]:
    """Names of the worlds, in the order of the params."""
    return [str(getattr(cls, "NAME", "")) for cls in _classes(params).values()]


def _classes(params: Params) -> dict[str, type]:
    """Address -> class, in the order of the params."""
    found: dict[str, type] = {}
    names: dict[str, str] = {}
    for address in params.modules:
        world = world_class(address, params.allow)
        name = str(getattr(world, "NAME", ""))
        if not name.isidentifier():
            raise BadInput(f"world {address!r}: NAME = {name!r} must be a word of letters, digits and underscores.")
        if name in names:
            raise BadInput(f"worlds {names[name]!r} and {address!r} have the same name {name!r}; give one of them another NAME.")
        names[name] = address
        found[address] = world
    return found


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """Write one folder per world into ctx.out; returns rows, users per split, tools and rules of each."""
    figures = {}
    for done, (address, cls) in enumerate(_classes(params).items()):
        seed = ctx.seed_for("world", getattr(cls, "SEED", "") or str(getattr(cls, "NAME", "")))  # not its address: it may move
        world = World.build(cls, params.size, seed, address, params.longest_answer)
        freeze_world(world, ctx.out / world.name, params.allow)
        ctx.progress(done + 1, len(params.modules), world.name)
        figures[world.name] = {
            "rows": sum(len(rows) for rows in world.shared.base.tables.values()),
            "tools": len(world.tools),
            "rules": len(world.rules),
            **{split: len(users) for split, users in world.shared.users.items()},
        }
    return {"worlds": figures}
