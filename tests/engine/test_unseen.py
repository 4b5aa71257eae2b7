"""Worlds that no training sees: one stage gets them, and no other can find one or hangs on them.

By hand: of the smoke road's stages seven read frozen worlds, and evaluate alone says READS_UNSEEN. So with a world more among the unseen ones
the keys of six stay what they were.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tasks.contract import schemas, tables
from tasks.contract.context import Context
from tasks.contract.params import BadInput
from tasks.engine import dvc_lock, methods
from tasks.engine.job import Job, identities, job_of
from tasks.engine.key import Key
from tasks.engine.plan import Plan
from tasks.engine.settings import load
from tasks.engine.together import planned
from tasks.generate import Inputs, apigen_mt
from tasks.players.roles import maker
from tasks.road import ROAD
from tasks.worlds import freeze
from tests.conftest import ROOT
from tests.playing import playing

LIBRARY = "tasks.worlds.library.library.world:Library"
RETAIL = "tasks.worlds.library.retail:Retail"
READERS = [step.name for step in ROAD if "worlds" in step.inputs]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return Plan.open(load(ROOT, "smoke"), tmp_path_factory.mktemp("unseen") / "state")


def frozen(plan: Plan, folder: Path, unseen: list[str]) -> str:
    """The identity of a frozen world with unseen ones beside it."""
    folder.mkdir()
    freeze.run(freeze.Inputs(), freeze.Params(modules=[RETAIL], size=30, unseen=unseen), Context(0, folder, folder))
    return plan.store.put(folder)


def job(plan: Plan, stage: str, worlds: str) -> Job:
    return job_of(plan, stage, {name: worlds if name == "worlds" else f"{name}.dir" for name in ROAD[stage].inputs})


def test_a_world_more_runs_evaluation_alone_and_no_other_stage_finds_it(plan: Plan, tmp_path: Path) -> None:
    assert [name for name in READERS if methods.reads_unseen(ROAD[name].room)] == ["evaluate"]
    plain, more = frozen(plan, tmp_path / "plain", []), frozen(plan, tmp_path / "more", [LIBRARY])
    assert plain != more
    for stage in READERS:
        one, other = job(plan, stage, plain), job(plan, stage, more)
        folders = {path.name for path in other.of("worlds").iterdir()}
        if stage == "evaluate":
            assert one.key.digest != other.key.digest and folders == {"retail", "unseen"}
        else:
            assert one.key == other.key and folders == {"retail"}
            other.check_unchanged()
    entry = {"identity": more, "parts": {"stage": "worlds"}}
    assert identities(plan.store, entry) == {more, plain}
    assert identities(plan.store, {"identity": more, "parts": {"stage": "base"}}) == {more}


def test_no_row_names_an_unseen_world(plan: Plan, tmp_path: Path) -> None:
    """Generate makes the rows that critique, filter and sft go on with; rl has a unit for each folder of its worlds."""
    worlds = job(plan, "generate", frozen(plan, tmp_path / "worlds", [LIBRARY])).of("worlds")
    ctx = Context(0, tmp_path / "out", tmp_path, **playing(maker({}, worlds, 0)))
    ctx.out.mkdir()
    apigen_mt.run(Inputs(worlds), apigen_mt.Params(problems=6, round_size=6, shard_size=6), ctx)
    rows = [*tables.read_rows(ctx.out / "blueprints.parquet", schemas.BLUEPRINT)]
    rows += tables.read_rows(ctx.out / "trajectories.parquet", schemas.TRAJECTORY)
    assert {row["world"] for row in rows} == {"retail"}
    with pytest.raises(BadInput, match="not a frozen world"):
        maker({}, worlds, 0)("human", "library")


def test_the_plan_of_a_road_names_them_for_evaluation_alone() -> None:
    settings = load(ROOT, "smoke", [("worlds.freeze.unseen", [LIBRARY])])
    steps = planned(settings, {name: settings.params(name) for name in settings.road.names})
    assert {name: one.unseen for name, one in steps.items() if one.unseen} == {"worlds": ["library"], "evaluate": ["library"]}
    assert all("library" not in [*one.worlds, *one.checkpoints] for one in steps.values())
    assert ("library" in str(load(ROOT, "real_cpu").params("worlds"))) and not load(ROOT, "quickstart").params("worlds").unseen  # type: ignore[attr-defined]


def test_what_dvc_holds_is_taken_over_with_a_world_more_and_then_noted_anew(plan: Plan, tmp_path: Path) -> None:
    """The dependency that dvc.lock names is the whole artifact, also the one of before."""
    plain, more = frozen(plan, tmp_path / "plain", []), frozen(plan, tmp_path / "more", [LIBRARY])
    one = job(plan, "filter", more)
    about, parts = plan.stages["filter"], {**one.key.parts, "versions": {}, "kernels": {}, "code": {}}
    for file in about.files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text((ROOT / file).read_text())

    def held(whole: str) -> tuple[str | None, bool]:
        deps = [{"path": f"data/{name}", "md5": whole if name == "worlds" else f"{name}.dir"} for name in about.inputs]
        params = {
            "params/pipeline.yaml": {key: plan.settings.tree[key] for key in about.settings},
            **{file: yaml.safe_load((tmp_path / file).read_text()) or {} for file in about.files},
        }
        entry = {"deps": deps, "params": params, "outs": [{"path": "data/filter", "md5": "f.dir"}]}
        (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": {"filter": entry}}))
        given = (tmp_path, about, Key(parts), plan.settings.tree)

        def as_read(inputs: dict[str, str]) -> dict[str, str]:
            return {name: plan.store.without(identity, "unseen") for name, identity in inputs.items()}

        return dvc_lock.held(*given, as_read), dvc_lock.up_to_date(*given, "f.dir", {}, one.inputs)  # type: ignore[arg-type]

    assert held(plain) == ("f.dir", False)
    assert held(more) == ("f.dir", True)
    assert held("0" * 32 + ".dir") == (None, False)
