"""Every scripted role swapped for a checkpoint in this process: the same code plays it, and what it says badly is counted, not fatal.

The checkpoint is a tiny untrained one, so it speaks nonsense: the hardest case for the code around it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.contract import schemas, tables
from tasks.engine import methods, process
from tasks.engine.running import call, context
from tasks.engine.settings import load
from tasks.engine.shards import sharded
from tasks.engine.shared_params import ROLES
from tests.conftest import ROOT
from tests.warm import WARM

pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("ground")]

GENERATE = {
    "problems": 4,
    "attempts": 1,
    "user_best_of": 1,
    "max_reflections": 1,
    "shard_size": 8,
    "max_steps": 4,
    "recombine": 1.0,
    "min_accepted": 0,
}
CRITIQUE: dict[str, Any] = {"critics": ["guard", "auditor"], "max_tokens": 24, "repairs": 1, "min_pairs": 0}
EVALUATE = {"problems": 2, "gate_problems": 0, "trials": 1, "max_steps": 4, "max_turn_tokens": 8, "resamples": 100, "max_lost": 1.0}


def _texts(inputs: dict[str, Any]) -> dict[str, Any]:
    kinds = {dict: _texts, bool: bool}
    return {name: kinds.get(type(given), str)(given) for name, given in inputs.items()}


def spec(stage: str, folder: Path, inputs: dict[str, Any], params: dict[str, Any], roles: dict[str, Any]) -> dict[str, Any]:
    method = load(ROOT, "smoke").method(stage)
    out, scratch = folder / "out", folder / "scratch"
    for place in (out, scratch):
        place.mkdir(parents=True)
    shared = {
        "unit": "",
        "seed": 0,
        "threads": 1,
        "instructions": "avx2",
        "device": "cpu",
        "prompt": {"tools": "none", "policy": "none"},
    }
    scripted = {"backend": "scripted", "errors": {}}
    asked = dict.fromkeys(getattr(methods.interface(stage), "ROLES", ()), scripted)
    assert set(roles) <= set(asked), "a role that its room never asks would be swapped for nothing"
    paths = _texts(inputs)
    return {
        "stage": stage,
        "room": stage,
        "loop": None,
        "method": method,
        "params": params,
        "inputs": paths,
        "out": str(out),
        "scratch": str(scratch),
        "roles": {**asked, **roles},
        **shared,
    }


def go(what: dict[str, Any]) -> dict[str, Any]:
    return call(what, context(what, lambda *_: None, lambda *_: None, sharded(Path(what["scratch"]))))


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Frozen worlds, an untrained checkpoint, and a few scripted conversations."""
    folder = tmp_path_factory.mktemp("ground")
    worlds = spec("worlds", folder / "worlds", {}, {"size": 40, "modules": ["tasks.worlds.library.retail:Retail"]}, {})
    go(worlds)
    small = {"layers": 2, "width": 32, "heads": 2, "vocab": 600, "corpus_dialogues": 10, "steps": 1, "length": 32}
    base = spec("base", folder / "base", {"worlds": worlds["out"]}, small, {})
    with WARM.python():
        process.run(base, ROOT, lambda *_: None, lambda *_: None)
    generate = spec("generate", folder / "generate", {"worlds": worlds["out"]}, GENERATE, {})
    go(generate)
    found = {"worlds": worlds, "base": base, "generate": generate}
    return {name: Path(one["out"]) for name, one in found.items()}


def local(ground: dict[str, Path]) -> dict[str, Any]:
    return {"backend": "local", "path": str(ground["base"] / "model"), "identity": "tiny", "errors": {}}


@pytest.mark.parametrize("role", ["generator", "judge", "feedback", "recombiner", "human", "human_critic", "agent"])
def test_generate(ground: dict[str, Path], tmp_path: Path, role: str) -> None:
    best_of = {"user_best_of": 2} if role == "human_critic" else {}
    errors = {"backend": "scripted", "errors": {"dropped_wish": 0.9}}  # something to refuse, so that feedback is asked
    roles = {"generator": errors, role: local(ground)} if role == "feedback" else {role: local(ground)}
    go(spec("generate", tmp_path, {"worlds": ground["worlds"]}, {**GENERATE, **best_of}, roles))
    attempts = list(tables.read_rows(tmp_path / "out/blueprints.parquet", schemas.BLUEPRINT))
    played = list(tables.read_rows(tmp_path / "out/trajectories.parquet", schemas.TRAJECTORY))
    assert attempts and all(row["fail_reason"] for row in attempts if row["status"] != "accepted"), "every refusal has its reason"
    if role == "generator":
        assert {row["status"] for row in attempts} == {"failed_format"}
    if role in ("agent", "human"):
        assert played and not any(row["reward"] for row in played), "nonsense wins nothing"
    if role == "agent":
        assert all(row["n_tokens"] == 0 or row["turns"] for row in played)


@pytest.mark.parametrize("role", ["critic", "meta_critic", "aggregator"])
def test_critique(ground: dict[str, Path], tmp_path: Path, role: str) -> None:
    params = CRITIQUE | ({"aggregator": "role"} if role == "aggregator" else {})
    inputs = {"worlds": ground["worlds"], "generate": ground["generate"]}
    figures = go(spec("critique", tmp_path, inputs, params, {role: local(ground)}))
    assert figures
    assert tables.read_table(tmp_path / "out/preferences.parquet", schemas.PREFERENCE).num_rows


def test_evaluate(ground: dict[str, Path], tmp_path: Path) -> None:
    road = {"models": {"base": ground["base"] / "model"}, "candidate": "base", "candidate_id": "tiny", "contender": True}
    roles = {"contender": local(ground)}
    what = spec("evaluate", tmp_path, {"worlds": ground["worlds"], **road}, EVALUATE, roles)
    figures = go({**what, "engine": {"method": "own", "params": {}}})
    played = [row for row in tables.read_rows(tmp_path / "out/trials.parquet", schemas.TRIAL) if row["model"] == "contender"]
    assert figures["overall"]["contender"]["pass_1"]["trials"] == 1 and len(played) == 2
    assert not any(row["reward"] for row in played), "nonsense wins nothing"


def test_every_role_is_swapped_here() -> None:
    generate = {"generator", "judge", "feedback", "recombiner", "human", "human_critic", "agent"}
    assert generate | {"critic", "meta_critic", "aggregator"} | {"contender"} == set(ROLES)
