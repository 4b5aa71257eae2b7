"""The reserve: test problems proven for worlds that draw none, apart from all that is trained on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasks.contract.client import Message, Request
from tasks.contract.context import Context
from tasks.contract.params import BadInput, StageFailed
from tasks.contract.schemas import BLUEPRINT, TRAJECTORY
from tasks.contract.tables import read_rows
from tasks.generate import Inputs, apigen_mt
from tasks.players.scripts.script import blocks
from tasks.worlds.adapters import from_object
from tasks.worlds.api.frozen import freeze_world
from tasks.worlds.api.runtime import World
from tasks.worlds.library.retail import Retail
from tests.playing import playing
from tests.worlds.kiosk import Adapted, adapted


class Bare(adapted(users="_users")):  # type: ignore[misc]
    """A shop that nobody gave problems for."""


class Stateless:
    """Keeps nothing, so that no row says whom a problem is about."""

    def cancel_order(self, order_id: str) -> str:
        """Cancel an order."""
        return "cancelled"


class Nameless(from_object(Stateless, name="nameless", policy="R1. Be kind.")):  # type: ignore[misc]
    """A world of it."""


RESERVE = apigen_mt.Params(lineages="test", problems=24, accepted=5, round_size=4, recombine=0)
SCORES = {name: {"score": 1, "reason": "fine"} for name in ("correctness", "completeness", "satisfaction", "creativity")}


@dataclass
class Model:
    """A model in a role, as far as the engine can tell."""

    answer: Callable[[Request], Any]
    name: str = "model"
    revision: str = "1"

    def complete(self, requests: Sequence[Request]) -> list[Message]:
        return [{"role": "assistant", "content": json.dumps(self.answer(request))} for request in requests]


def draft(request: Request) -> dict[str, Any]:
    """Cancels an order; every third wish names a tool that is not there, so that it is refused."""
    tool = "cancel_order" if request.seed % 3 else "cancel"
    wish = f"Cancel W1 for {blocks(request.messages, 'data')[-1]['user_id']}, wish {request.seed}."
    return {"thought": "", "instruction": wish, "actions": [{"name": tool, "arguments": {"order_id": "W1"}}], "outputs": ["cancelled"]}


def nobody(request: Request) -> Any:
    raise AssertionError("nobody talks about problems that are held out")


def run(folder: Path, params: apigen_mt.Params, seed: int = 0, author: Callable[[Request], Any] = draft) -> dict[str, Any]:
    """Run it with models in the roles; what it leaves lies in folder/out."""
    roles = {
        **{name: Model(nobody) for name in ("recombiner", "human", "human_critic", "agent")},
        "generator": Model(author),
        "judge": Model(lambda request: SCORES),
        "feedback": Model(lambda request: {"summary": "again"}),
    }
    (folder / "out").mkdir(parents=True)
    ctx = Context(seed, folder / "out", folder / "scratch", **playing(lambda name, world="": roles[name]))
    return apigen_mt.run(Inputs(folder.parent / "worlds"), params, ctx)


def accepted(folder: Path) -> list[dict[str, Any]]:
    return [row for row in read_rows(folder / "out" / "blueprints.parquet", BLUEPRINT) if row["status"] == "accepted"]


def frozen(folder: Path, *classes: type) -> None:
    for one in classes:
        made = World.build(one, 30, 0, f"{one.__module__}:{one.__name__}")
        freeze_world(made, folder / "worlds" / made.name)


@pytest.mark.parametrize("shop", [Bare, Nameless])
def test_no_lineage_of_the_reserve_is_trained_on(shop: type, tmp_path: Path) -> None:
    """Whether the state has users, or each blueprint is a lineage of its own."""
    frozen(tmp_path, shop)
    figures = run(tmp_path / "reserve", RESERVE)
    held = accepted(tmp_path / "reserve")
    assert {row["split"] for row in held} == {"test"} and len(held) >= 5
    assert figures["reserve"] == {"problems": {shop.NAME: len(held)}, "none_for": [], "why": ""}
    assert list(read_rows(tmp_path / "reserve" / "out" / "trajectories.parquet", TRAJECTORY)) == []
    learn = apigen_mt.Params(problems=40, attempts=1, recombine=0)
    with pytest.raises(AssertionError, match="nobody talks"):  # the conversations are another matter
        run(tmp_path / "generate", learn)
    for row in read_rows(tmp_path / "generate" / "out" / "blueprints.parquet", BLUEPRINT):
        assert row["split"] in ("train", "validation") and not {*row["lineage"]} & {name for one in held for name in one["lineage"]}


def test_growing_keeps_what_there_is(tmp_path: Path) -> None:
    """Rounds of 4: with 5 wanted it takes as many rounds as that needs, and with 9 some more."""
    frozen(tmp_path, Bare)
    run(tmp_path / "small", RESERVE)
    run(tmp_path / "large", RESERVE.model_copy(update={"accepted": 9}))
    small, large = accepted(tmp_path / "small"), accepted(tmp_path / "large")
    assert 5 <= len(small) < 9 <= len(large) and large[: len(small)] == small


def test_worlds_that_draw_their_own_get_none(tmp_path: Path) -> None:
    frozen(tmp_path, Retail, Adapted)
    figures = run(tmp_path / "reserve", RESERVE, author=nobody)
    assert figures["reserve"] == {"problems": {}, "none_for": ["kiosk", "retail"], "why": "kiosk, retail draw problems of their own"}
    assert accepted(tmp_path / "reserve") == [] and figures["base"]["attempts"] == 0


def test_too_few_that_can_be_proven_stop_it(tmp_path: Path) -> None:
    frozen(tmp_path, Bare)
    with pytest.raises(
        StageFailed, match=r"\d+ blueprints of world kiosk were accepted of the 8 that are wanted \(accepted\).*all 8 that may be"
    ):
        run(tmp_path / "reserve", RESERVE.model_copy(update={"problems": 8, "accepted": 8, "max_reflections": 0}))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"accepted": 0}, "accepted = 0: with lineages = test it says how many test problems of each world are proven"),
        ({"accepted": 25}, "accepted = 25: 24 blueprints .* are 24. Raise problems"),
    ],
)
def test_sizes_that_cannot_be_are_refused(changed: dict[str, Any], says: str) -> None:
    apigen_mt.check(RESERVE)
    with pytest.raises(BadInput, match=says):
        apigen_mt.check(RESERVE.model_copy(update=changed))
