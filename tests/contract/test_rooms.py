"""Every method of every room through the same checks: same inputs same bytes, inputs untouched, files as the interface says, no pickle.

A new method is found by looking into its room. Where its defaults are too large for a test, its test file says `SMOKE = {...}`. What
the smoke road left is each room's input; of the methods that it took it is also the first of two runs, which must leave the same bytes.
Methods on environments go through the same in `test_environment_rooms.py`.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tasks.contract import schemas, tables
from tasks.engine import methods, process
from tasks.engine.hashes import Hashes
from tasks.engine.job import Job, job_of
from tasks.engine.plan import Plan
from tasks.engine.settings import Settings, load
from tasks.engine.sources import identity_of
from tasks.road import ROAD
from tests.conftest import ROOT, Project
from tests.contract.methods import smoke_params
from tests.warm import WARM

pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("road")]

ALL = [(one.room, one.name) for one in methods.everything() if methods.ground(one.room, one.name) == methods.WORLDS]
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
"""What the interfaces say a method leaves."""


class Chain:
    """Runs of single methods on what the road left, each in a process of its own."""

    def __init__(self, road: Project, folder: Path) -> None:
        self.folder = folder
        self.settings = load(ROOT, "smoke")
        self.identities = road.identities()
        self.store = Plan.open(load(road.folder), road.folder / ".cairn").store
        entries = [json.loads(path.read_text()) for path in (road.folder / ".cairn/keys").glob("*.json")]
        self.figures = {entry["identity"]: entry["figures"] for entry in entries}

    def artifact(self, stage: str) -> Path:
        return self.store.view(self.identities[stage])

    def first(self, stage: str, name: str) -> tuple[Path, dict[str, Any]]:
        """What the road left of this method, as one process leaves it; a run of a method that it did not take."""
        if self.settings.method(stage) != name:
            return self.run(stage, name, "first")
        folder, figures = self.artifact(stage), self.figures[self.identities[stage]]
        if stage == "rl":
            return folder / "retail", figures["retail"]
        if stage == "sft":  # its control is another process
            copy = shutil.copytree(folder, self.folder / "sft", ignore=shutil.ignore_patterns("unfiltered"))
            return copy, {name: figure for name, figure in figures.items() if name != "unfiltered"}
        return folder, figures

    def run(
        self, stage: str, name: str, turn: str, project: Path = ROOT, instead: Mapping[str, Any] | None = None
    ) -> tuple[Path, dict[str, Any]]:
        """Run a method in a process of its own. project: where its code lies. instead: parts of the process's spec that are others."""
        own = (
            {}
            if self.settings.method(stage) == name
            else {"method": name, name: {**smoke_params(stage, name), **self._outside(stage, name)}}
        )
        settings = Settings(ROOT, {**self.settings.tree, stage: {**self.settings.tree[stage], **own}})
        plan = Plan.open(settings, self.folder / "state")
        inputs = plan.stages[stage].inputs
        job = job_of(replace(plan, store=self.store), stage, {one: self.identities[one] for one in inputs})
        out, scratch = (self.folder / turn / f"{stage}-{name}" / part for part in ("out", "scratch"))
        for place in (out, scratch):
            place.mkdir(parents=True)
        spec = job.spec(out, scratch, self._inputs(job, scratch), "retail" if stage == "rl" else "")
        with WARM.python():
            return out, process.run({**spec, **(instead or {})}, project, lambda *_: None, lambda *_: None)

    def _outside(self, stage: str, name: str) -> dict[str, str]:
        """For a method that reads a checkpoint from outside the road's own, for one that reads files the road's conversations."""
        params = methods.load(stage, name).Params
        if not params.PLACE:
            return {}
        step, inside = {"checkpoint": ("base", "model"), "files": ("generate", "")}[params.PLACE_HOLDS]
        identity = identity_of(self.artifact(step) / inside, self.store, holds=params.PLACE_HOLDS)
        return {params.PLACE: f"artifact:{self.identities[step]}", "identity": identity}

    def _inputs(self, job: Job, scratch: Path) -> dict[str, Any]:
        """The room's Inputs, as its task.py fills them; the artifacts are the road's."""
        task = import_module(f"tasks.{job.plan.settings.room(job.stage)}.task")
        found: dict[str, Any] = task.inputs(job, *{"rl": ["retail"], "merge": [scratch]}.get(job.stage, []))
        if job.stage == "merge" and self.settings.method("merge") != job.method:  # there are methods for one alone
            found["experts"] = {"rl_retail": found["experts"]["rl_retail"]}
        return found


@pytest.fixture(scope="module")
def chain(road: Project, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return Chain(road, tmp_path_factory.mktemp("chain"))


def finite(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and finite(item) for key, item in value.items())
    if isinstance(value, list):
        return all(finite(item) for item in value)
    return math.isfinite(value) if isinstance(value, float) else value is None or isinstance(value, (str, int, bool))


@pytest.mark.parametrize(("stage", "name"), ALL)
def test_contract(chain: Chain, stage: str, name: str) -> None:
    hashes = Hashes(chain.folder / "state")
    inputs = {room: chain.artifact(room) for room in ROAD[stage].inputs}
    before = {room: hashes.path(path) for room, path in inputs.items()}
    first, figures = chain.first(stage, name)
    again, figures_again = chain.run(stage, name, "again")

    assert hashes.listing(first) == hashes.listing(again), "same inputs, same bytes"
    assert figures == figures_again and finite(figures), figures
    assert {room: hashes.path(path) for room, path in inputs.items()} == before, "inputs are never written"
    check_files(stage, first)


def check_files(stage: str, folder: Path) -> None:
    """What a method left is what its room's interface says."""
    check_these(FILES[stage], folder)


def check_these(files: Mapping[str, Any], folder: Path) -> None:
    """A folder has these files, of these schemas, and no other kinds."""
    for file, schema in files.items():
        assert (folder / file).is_file(), f"the interface promises {file}"
        if schema is not None:
            tables.read_table(folder / file, schema)
    suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert suffixes <= {".parquet", ".json", ".csv", ".safetensors", ".jinja", ".md", ".yaml"}, "no pickle, nothing unknown"
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())
