"""Every method of every room through the same checks: same inputs same bytes, inputs untouched, files as the door says, no pickle.

A new method is found by looking into its room; it needs small params of its own in the smoke profile, and nothing else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tasks.contract import schemas, tables
from tasks.engine import methods, process
from tasks.engine.execute import Plan
from tasks.engine.fingerprint import Hashes
from tasks.engine.settings import Settings, load
from tests.conftest import ROOT
from tests.warm import WARM

pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("chain")]

ALL = [(one.stage, one.name) for one in methods.everything()]
FILES: Mapping[str, Mapping[str, Any]] = {
    "worlds": {},
    "base": {"model/config.json": None, "model/model.safetensors": None, "curves.csv": None},
    "generate": {"blueprints.parquet": schemas.BLUEPRINT, "trajectories.parquet": schemas.TRAJECTORY},
    "critique": {"critiques.parquet": schemas.CRITIQUE, "preferences.parquet": schemas.PREFERENCE},
    "filter": {"dataset.parquet": schemas.DATASET},
    "sft": {"model/config.json": None, "model/model.safetensors": None, "curves.csv": None},
    "rl": {"model/config.json": None, "model/model.safetensors": None, "curves.csv": None},
    "merge": {"model/config.json": None, "report.parquet": None},
    "evaluate": {"trials.parquet": schemas.TRIAL, "metrics.json": None},
    "decide": {"decision.json": None},
}
"""What the doors say a method leaves."""


class Chain:
    """The smoke road, stage by stage, each method in a process of its own; the first run of each is kept for the next."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = load(ROOT, "smoke")
        self.done: dict[tuple[str, str], Path] = {}
        self.figures: dict[tuple[str, str], dict[str, Any]] = {}

    def artifact(self, stage: str) -> Path:
        name = self.settings.method(stage)
        if (stage, name) not in self.done:
            self.done[stage, name], self.figures[stage, name] = self.run(stage, name, "first")
        return self.done[stage, name]

    def run(self, stage: str, name: str, turn: str) -> tuple[Path, dict[str, Any]]:
        settings = Settings(ROOT, {**self.settings.tree, stage: {**self.settings.tree[stage], "method": name}})
        plan = Plan.open(settings, self.folder / "state")
        inputs = plan.stages[stage].inputs
        job = plan.job(stage, {one: Hashes(self.folder / "state").path(self.artifact(one)) for one in inputs})
        out, scratch = (self.folder / turn / f"{stage}-{name}" / part for part in ("out", "scratch"))
        for place in (out, scratch):
            place.mkdir(parents=True)
        spec = job.spec(out, scratch, self._inputs(stage), "retail" if stage == "rl" else "")
        with WARM.python():
            return out, process.run(spec, ROOT, lambda *_: None, lambda *_: None)

    def _inputs(self, stage: str) -> dict[str, Any]:
        """The room's Inputs, as its task.py fills them."""
        if stage == "worlds":
            return {}
        if stage == "rl":
            return {"worlds": self.artifact("worlds"), "sft": self.artifact("sft"), "world": "retail"}
        if stage == "merge":
            return {"base": self.artifact("sft") / "model", "experts": {"rl_retail": self.artifact("rl") / "model"}}
        if stage == "evaluate":
            models = {"base": "base", "sft": "sft", "rl_retail": "rl", "merged": "merge"}
            return {
                "worlds": self.artifact("worlds"),
                "models": {name: self.artifact(room) / "model" for name, room in models.items()},
                "candidate": "merged",
                "candidate_id": "0" * 32,
                "champion": None,
            }
        if stage == "decide":
            return {"evaluate": self.artifact("evaluate"), "champion": None, "candidate": "merged", "candidate_id": "0" * 32}
        wanted = {"base": ("worlds",), "generate": ("worlds",), "critique": ("worlds", "generate")}
        named = wanted | {"filter": ("worlds", "generate", "critique"), "sft": ("worlds", "base", "filter")}
        return {name: self.artifact(name) for name in named[stage]}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return Chain(tmp_path_factory.mktemp("chain"))


def finite(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and finite(item) for key, item in value.items())
    if isinstance(value, list):
        return all(finite(item) for item in value)
    return math.isfinite(value) if isinstance(value, float) else value is None or isinstance(value, (str, int, bool))


@pytest.mark.parametrize(("stage", "name"), ALL)
def test_contract(chain: Chain, stage: str, name: str) -> None:
    assert methods.loop(stage) or name in chain.settings.tree[stage], f"the smoke profile has no small params for {stage}.{name}"
    hashes = Hashes(chain.folder / "state")
    inputs = {room: chain.artifact(room) for room in _needs(stage)}
    before = {room: hashes.path(path) for room, path in inputs.items()}
    if chain.settings.method(stage) == name:
        first = chain.artifact(stage)
        figures = chain.figures[stage, name]
    else:
        first, figures = chain.run(stage, name, "first")
    again, figures_again = chain.run(stage, name, "again")

    assert hashes.listing(first) == hashes.listing(again), "same inputs, same bytes"
    assert figures == figures_again and finite(figures), figures
    assert {room: hashes.path(path) for room, path in inputs.items()} == before, "inputs are never written"
    for file, schema in FILES[stage].items():
        assert (first / file).is_file(), f"the door promises {file}"
        if schema is not None:
            tables.read_table(first / file, schema)
    suffixes = {path.suffix for path in first.rglob("*") if path.is_file()}
    assert suffixes <= {".parquet", ".json", ".csv", ".safetensors", ".jinja", ".md"}, "no pickle, nothing unknown"
    for path in first.rglob("*.json"):
        json.loads(path.read_text())


def _needs(stage: str) -> tuple[str, ...]:
    from tasks.engine.fingerprint import listed

    return listed(load(ROOT, "smoke"))[stage].inputs
