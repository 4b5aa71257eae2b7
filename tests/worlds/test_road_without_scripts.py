"""An API without scripted people down the road, room by room, in this process: a stand-in for models plays all roles, and whatever is
trained on, validated or tested is a problem that was proven."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tasks.base import Inputs as BaseInputs
from tasks.base import checkpoint
from tasks.chat import proof
from tasks.contract import schemas, tables
from tasks.contract.context import Context
from tasks.contract.rows import problem_of
from tasks.critique import Inputs as CritiqueInputs
from tasks.critique import multicritique
from tasks.decide import Inputs as DecideInputs
from tasks.decide import paired_gate
from tasks.evaluate import Inputs as EvaluateInputs
from tasks.evaluate import pass_k
from tasks.filter import Inputs as FilterInputs
from tasks.filter import rejection_sampling
from tasks.generate import Inputs as GenerateInputs
from tasks.generate import apigen_mt
from tasks.merge import Inputs as MergeInputs
from tasks.merge import linear
from tasks.players.stand_in import StandIn
from tasks.rl import Inputs as RlInputs
from tasks.rl.core.loop import run as reinforce
from tasks.rl.grpo import Params as GrpoParams
from tasks.sft import Inputs as SftInputs
from tasks.sft import sft
from tasks.sft.core import loop as sft_loop
from tasks.sft.core.params import Loop as SftLoop
from tasks.worlds.api.frozen import freeze_world
from tasks.worlds.api.runtime import World
from tests.playing import NO_PROMPT, playing
from tests.rl import micro
from tests.rollout import tiny
from tests.worlds.kiosk import adapted

ROUND = {"round_size": 16, "recombine": 0.0, "attempts": 1, "problems": 48}
SMALL = {"problems": 2, "gate_problems": 2, "trials": 1, "max_steps": 4, "max_turn_tokens": 6, "rows": 6, "resamples": 100}


class Bare(adapted(users="_users")):  # type: ignore[misc]
    """A shop that nobody wrote a script or a problem for."""


def player(role: str, world: str = "") -> StandIn:
    if "/" in role:
        raise LookupError(role)  # one judge, one critic of a kind
    return StandIn()


def context(folder: Path) -> Context:
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Context(seed=5, out=folder / "out", scratch=folder / "scratch", prompt=NO_PROMPT, **playing(player))


def evaluated(home: Path, which: str, used: Sequence[str]) -> tuple[Path, dict[str, set[str]]]:
    """(folder of a candidate's evaluation, set -> ids of the problems that it played)."""
    ctx = context(home / which)
    models = {"base": home / "base/out/model", "merged": home / "merge/out/model"}
    inputs = EvaluateInputs(home / "worlds", models, "merged", which, reserve=home / "reserve/out", used=used)
    pass_k.run(inputs, pass_k.Params(**SMALL, max_episode_tokens=512), ctx)
    found: dict[str, set[str]] = {}
    for row in tables.read_rows(ctx.out / "trials.parquet", schemas.TRIAL):
        found.setdefault(row["set"], set()).add(row["problem_id"])
    return ctx.out, found


def test_from_worlds_to_a_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "find", partial(proof.find, count=30))
    shop = World.build(Bare, 1, 0, f"{__name__}:Bare")
    worlds, name = tmp_path / "worlds", shop.name
    freeze_world(shop, worlds / name)

    steps = {step: context(tmp_path / step) for step in ("generate", "reserve", "critique", "filter", "base", "sft", "rl", "merge")}
    out = {step: ctx.out for step, ctx in steps.items()}
    apigen_mt.run(GenerateInputs(worlds), apigen_mt.Params(**ROUND, validation=0.3), steps["generate"])
    apigen_mt.run(GenerateInputs(worlds), apigen_mt.Params(**ROUND, lineages="test", accepted=6), steps["reserve"])
    multicritique.run(CritiqueInputs(worlds, out["generate"]), multicritique.Params(min_pairs=0), steps["critique"])
    marks = FilterInputs(worlds, out["generate"], out["critique"])
    assert rejection_sampling.run(marks, rejection_sampling.Params(min_score=0.0), steps["filter"])["kept"] > 0

    brought = tiny.saved(tmp_path / "brought", layers=1, end=6.0)
    checkpoint.run(BaseInputs(worlds, brought), checkpoint.Params(source=str(brought)), steps["base"])
    loop = SftLoop(batch_tokens=2048, max_length=4096, max_steps=2, log_every=1, learning_rate=1e-2)
    tuned = sft_loop.run(SftInputs(worlds, out["base"], out["filter"]), loop, sft.hooks(sft.Params(), steps["sft"]), steps["sft"])
    assert tuned["rows"] > 0
    brief = micro.Brief(params=GrpoParams())
    paid = reinforce(RlInputs(worlds, out["sft"], name, out["generate"]), micro.SHORT, brief, steps["rl"])
    assert paid["steps"] == 2 and paid["tokens_trained"] > 0
    linear.run(MergeInputs(out["sft"] / "model", {"rl": out["rl"] / "model"}), linear.Params(), steps["merge"])

    folder, first = evaluated(tmp_path, "a.dir", [])
    _, second = evaluated(tmp_path, "b.dir", sorted(first["gate"]))
    held: list[dict[str, Any]] = [
        row for row in tables.read_rows(out["reserve"] / "blueprints.parquet", schemas.BLUEPRINT) if row["status"] == "accepted"
    ]
    assert first["test"] == second["test"] == {row["problem_id"] for row in held[:2]}, "the same for every candidate"
    assert len(first["gate"] | second["gate"] | first["test"]) == 6, "and fresh ones for each gate"
    assert all(problem_of(row).lineage[0] in shop.shared.users["test"] for row in held)

    decision = paired_gate.run(
        DecideInputs(folder, None, "merged", "a.dir", "base"), paired_gate.Params(as_served="skip"), context(tmp_path / "decide")
    )
    assert decision["decision"] == "refuse", "random weights solve nothing"
    assert next(gate["passed"] for gate in decision["gates"] if gate["name"] == "benchmark"), "the oracle solves all, nothing none"
