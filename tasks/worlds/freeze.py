"""Freeze worlds into one artifact: each world's tools, policy, tables, splits and the hash of its code, wherever that lies.

All later stages read worlds from this artifact, so that a change of a tool, a rule, a row or a phrase is a change of their input.
Unseen worlds lie apart in it: evaluation alone gets them, so that no other stage can learn from one or runs again for one.
Cost: linear in the number of rows; a thousand users take about a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field

from tasks.contract import params as base
from tasks.contract.context import Context
from tasks.contract.params import BadInput
from tasks.worlds import NOT_COMPARED, UNSEEN
from tasks.worlds.api.calls import ANSWER
from tasks.worlds.api.frozen import freeze_world
from tasks.worlds.api.loading import BUILT_IN, world_class
from tasks.worlds.api.problem_making import draw_problems
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
    unseen: list[str] = Field(
        [], description="worlds, named likewise, that are frozen and evaluated beside them, and from which nothing is made or learned"
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
    """Raise BadInput for a module that cannot be loaded, two worlds of one name, and an unseen world that is trained on or has no
    problems."""
    if both := [address for address in params.unseen if address in params.modules]:
        raise BadInput(
            f"world {both[0]!r} stands in modules, which are trained on, and in unseen, which never are. Take one of them out."
        )
    classes = _classes(params)
    for address in params.unseen:
        if not getattr(classes[address], "FAMILIES", ()):
            raise BadInput(
                f"unseen world {address!r}: makes no problems of its own (FAMILIES is empty), so nothing could be evaluated."
            )


def names(params: Params) -> list[str]:
    """Names of the worlds that training sees, in the order of the params."""
    classes = _classes(params)
    return [_name(classes[address]) for address in params.modules]


def unseen(params: Params) -> list[str]:
    """Names of the worlds that are evaluated alone, in the order of the params."""
    classes = _classes(params)
    return [_name(classes[address]) for address in params.unseen]


def proven(params: Params) -> list[str]:
    """Names of those that training sees and that draw no problems of their own: room generate proves theirs."""
    classes = _classes(params)
    return [_name(classes[address]) for address in params.modules if not getattr(classes[address], "FAMILIES", ())]


def _name(cls: type) -> str:
    return str(getattr(cls, "NAME", ""))


def _classes(params: Params) -> dict[str, type]:
    """Address -> class, in the order of the params, the unseen ones last."""
    found: dict[str, type] = {}
    names: dict[str, str] = {}
    for address in (*params.modules, *params.unseen):
        world = world_class(address, params.allow)
        name = _name(world)
        if not name.isidentifier() or name == UNSEEN:
            raise BadInput(f"world {address!r}: NAME = {name!r} must be a word of letters, digits and underscores, and not {UNSEEN!r}.")
        if name in names:
            raise BadInput(f"worlds {names[name]!r} and {address!r} have the same name {name!r}; give one of them another NAME.")
        names[name] = address
        found[address] = world
    return found


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """Write one folder per world into ctx.out, of an unseen one into `unseen` there; returns rows, users per split, tools and rules of
    each. Raises BadInput for an unseen world that has no test problem, and for tools that no play may call."""
    figures = {}
    classes = _classes(params)
    for done, (address, cls) in enumerate(classes.items()):
        seed = ctx.seed_for("world", getattr(cls, "SEED", "") or str(getattr(cls, "NAME", "")))  # not its address: it may move
        world = World.build(cls, params.size, seed, address, params.longest_answer)
        _check_playable(world)
        if address in params.unseen:
            draw_problems(world, "test", 1, seed)
        freeze_world(world, ctx.out / (UNSEEN if address in params.unseen else "") / world.name, params.allow)
        ctx.progress(done + 1, len(classes), "worlds frozen")
        figures[world.name] = {
            "rows": sum(len(rows) for rows in world.shared.base.tables.values()),
            "tools": len(world.tools),
            "rules": len(world.rules),
            **{split: len(users) for split, users in world.shared.users.items()},
            **({} if world.compared else {NOT_COMPARED: 1}),
        }
    return {"worlds": figures}


def _check_playable(world: World) -> None:
    for name, tool in world.tools.items():
        if world.foreign is not None and tool.kind != "read" and (why := world.foreign.source.protected(name)):
            raise BadInput(f"world {world.name}: tool {name!r} can be called in no run: {why}")
