"""A road of one's own: rooms entered a second time under other names, and both drivers, keys, evaluation and report that see them."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.bank import pin
from flows.exports.export_rows import Wish, export
from flows.exports.sources import find
from flows.model_names import is_step, place
from flows.regrade import regrade
from flows.report import page
from flows.road import Walk
from flows.survey import survey
from infra import dvc_yaml
from tasks.contract.params import BadInput
from tasks.decide import task as decide
from tasks.engine import methods
from tasks.engine.artifact import Artifact, Store
from tasks.engine.dvc_yaml import listed
from tasks.engine.job import Job, job_of
from tasks.engine.key import Key
from tasks.engine.plan import Plan
from tasks.engine.settings import Settings, load
from tasks.engine.together import planned
from tasks.evaluate import task as evaluate
from tasks.merge import task as merge
from tasks.rl import task as rl
from tasks.road import ROAD, Road, Step
from tests.conftest import ROOT, make_project
from tests.flows.artifacts import build

LIKES = '''"""Preferences: a method of this test's own, which changes nothing of the room's loop."""

from tasks.contract.params import Params as Base
from tasks.rl.core.hooks import Hooks

TITLE, PAPER, SLUG = "Likes", "", "likes"


class Params(Base):
    """None."""


def hooks(params, ctx):
    return Hooks()
'''


def longer() -> Road:
    """Cairn's road with a critic that is fine-tuned, and a preference step between the specialists and the merge."""
    steps = []
    for step in ROAD:
        if step.name == "merge":
            steps.append(Step("preference", "rl", ("worlds", "generate", "rl"), "prefer"))
            step = replace(step, inputs=("sft", "preference"))
        if step.name == "evaluate":
            step = replace(step, inputs=(*step.inputs[:4], "critic_sft", *step.inputs[4:-1], "preference", "merge"))
        steps.append(step)
        if step.name == "sft":
            steps.append(Step("critic_sft", "sft", ("worlds", "base", "filter"), "fine-tune a critic"))
    return Road(tuple(steps), ROAD.candidate)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """The smoke profile with sections for the further steps, in a project whose dvc.yaml is made of the longer road."""
    folder = make_project(tmp_path_factory.mktemp("longer") / "project", "smoke").folder
    (folder / "tasks/rl/likes.py").write_text(LIKES)
    spec = importlib.util.spec_from_file_location("tasks.rl.likes", folder / "tasks/rl/likes.py")
    assert spec and spec.loader
    sys.modules["tasks.rl.likes"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    known = methods.names
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "names", lambda room: (*known(room), *(["likes"] if room == "rl" else [])))
        (folder / "dvc.yaml").write_text(dvc_yaml.current((ROOT / "dvc.yaml").read_text(), longer()))
        plain = load(folder)
        tree = {
            **plain.tree,
            "critic_sft": {"method": "sft", "loop": {"max_steps": 3, "control": False}},
            "preference": {
                "method": "likes",
                "agents": {"method": "react"},
                "engine": {"method": "own"},
                "loop": {"steps": 2, "groups": 2, "group_size": 4},
            },
        }
        yield replace(plain, tree=tree, road=longer())
    del sys.modules["tasks.rl.likes"]


@pytest.fixture
def plan(settings: Settings, tmp_path: Path) -> Plan:
    return Plan.open(settings, tmp_path / "state")


def left(plan: Plan, stage: str, *models: str, **files: str) -> str:
    """The identity of an artifact with these checkpoint folders in it; its bytes name it, so that no two are one."""
    folder = plan.store.state / "made" / stage
    for name in models:
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(f'"{stage} {name}"')
    for name, text in {"about.json": f'"{stage}"', **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return plan.store.put(folder)


def everything(plan: Plan) -> dict[str, str]:
    """Artifacts of all steps that the evaluation reads: the critic's without a control, a specialist for each of two worlds."""
    specialists = ("airline/model", "retail/model")
    found = {"base": left(plan, "base", "model"), "sft": left(plan, "sft", "model", "unfiltered/model")}
    found |= {"critic_sft": left(plan, "critic_sft", "model"), "merge": left(plan, "merge", "model")}
    found |= {step: left(plan, step, *specialists, **{"rewards.csv": ""}) for step in ("rl", "preference")}
    worlds = left(plan, "worlds", **{"airline/world.json": "{}", "retail/world.json": "{}"})
    return {**found, "worlds": worlds, **{step: left(plan, step) for step in ("generate", "reserve", "filter")}}


def job(plan: Plan, stage: str, there: Mapping[str, str]) -> Job:
    return job_of(plan, stage, {name: there[name] for name in plan.stages[stage].inputs})


def test_a_road_that_cannot_be_walked_is_refused() -> None:
    one = Step("one", "base", (), "")
    for steps, candidate, said in [
        ((one, one), "one", "two steps named 'one'"),
        ((Step("two", "base", ("one",), ""), one), "one", "reads 'one', which is no step before it"),
        ((one,), "merge", "the candidate 'merge' is no step"),
        ((Step("../one", "base", (), ""),), "../one", "its name is a section of the params and a folder"),
    ]:
        with pytest.raises(ValueError, match=said):
            Road(steps, candidate)
    assert ROAD.decision == "decide" and ROAD.judged == "evaluate" and ROAD.after("merge") == {"merge", "evaluate", "decide"}


def test_a_step_of_a_room_that_is_none_is_named_with_the_rooms_there_are(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = (replace(step, room="stf") if step.name == "critic_sft" else step for step in settings.road)
    road = Road(tuple(steps), ROAD.candidate)
    monkeypatch.setattr(methods, "ROAD", road)
    said = r"tasks/road\.py: step 'critic_sft': no room 'stf'\. Did you mean 'sft'\? Rooms: base, critique, .*, worlds\."
    for look in (lambda: replace(settings, road=road).check(), lambda: [*dvc_yaml.stages(road)], methods.everything):
        with pytest.raises(BadInput, match=said):
            look()


def test_dvc_gets_a_stage_for_each_step(settings: Settings) -> None:
    stages = yaml.safe_load((settings.project / "dvc.yaml").read_text())["stages"]
    assert [*stages] == [*longer().names]
    critic, sft = stages["critic_sft"], stages["sft"]
    assert critic["cmd"] == "python -m flows.stage critic_sft" and critic["outs"] == ["data/critic_sft"]
    assert [dep.replace("critic_sft.", "sft.") for dep in critic["deps"]] == sft["deps"], "the same code, by the step's own method"
    assert critic["params"][0]["params/pipeline.yaml"][-1] == "critic_sft"
    assert listed(settings)["preference"].inputs == ("worlds", "generate", "rl")
    assert "tasks/rl/likes.py" in listed(settings)["preference"].code and "tasks/rl/grpo.py" not in listed(settings)["preference"].code
    assert "critic_sft loss" in {name for plot in yaml.safe_load((settings.project / "dvc.yaml").read_text())["plots"] for name in plot}


def test_the_params_have_a_section_for_each_step(settings: Settings) -> None:
    settings.check()
    assert settings.method("preference") == "likes" and settings.params("critic_sft") == settings.params("sft")
    for change, said in [
        ({"critic_sfd": {}}, r"unknown key 'critic_sfd'\. Did you mean 'critic_sft'\?"),
        ({"critic_sft": {"method": "grpo"}}, r"critic_sft\.method: no method 'grpo' in room 'sft'"),
        ({"critic_sft": {"method": "sft", "loop": {"max_step": 1}}}, r"critic_sft\.loop: .*'max_step'.*Did you mean 'max_steps'"),
        (
            {"preference": {"method": "likes", "agents": {"method": "react"}, "seed": -1}},
            r"preference\.seed = -1: a whole number from 0",
        ),
    ]:
        with pytest.raises(BadInput, match=said):
            replace(settings, tree={**settings.tree, **change}).check()
    lost = {name: section for name, section in settings.tree.items() if name != "preference"}
    with pytest.raises(BadInput, match="the section 'preference' is missing"):
        replace(settings, tree=lost).check()


def test_a_step_is_not_named_as_a_section_that_is_no_steps(settings: Settings) -> None:
    """Its section would hide the roles, or the seed, of the whole road."""
    steps = (*settings.road, Step("roles", "base", ("worlds",), ""))
    tree = {**settings.tree, "roles": settings.tree["base"]}
    with pytest.raises(BadInput, match="step 'roles': a section of the params has this name that is no step's"):
        replace(settings, tree=tree, road=Road(steps, "merge")).check()


@pytest.mark.parametrize("value", [[], 0, False, ""])
@pytest.mark.parametrize("section", ["loop", "sft"])
def test_a_section_is_a_mapping_or_empty(settings: Settings, section: str, value: object) -> None:
    """An empty list is a mistake; nothing below the name is none."""
    plain = {**settings.tree["sft"], section: None}
    replace(settings, tree={**settings.tree, "sft": plain}).check()
    with pytest.raises(BadInput, match=f"sft.{section}: expected a mapping of params"):
        replace(settings, tree={**settings.tree, "sft": {**plain, section: value}}).check()


def test_steps_that_do_not_fit_their_room_are_refused(settings: Settings) -> None:
    def with_inputs(name: str, *inputs: str) -> Settings:
        steps = tuple(replace(step, inputs=inputs) if step.name == name else step for step in settings.road)
        return replace(settings, road=Road(steps, "merge"))

    with pytest.raises(BadInput, match=r"step 'critic_sft' .* it has none, or several, of checkpoints"):
        with_inputs("critic_sft", "worlds", "base", "sft", "filter").check()
    with pytest.raises(BadInput, match=r"step 'critic_sft' .* nothing there reads critique"):
        with_inputs("critic_sft", "worlds", "base", "filter", "critique").check()
    with pytest.raises(BadInput, match="merge: a merge reads two inputs or more"):
        with_inputs("merge", "sft").check()
    with pytest.raises(BadInput, match=r"step 'critic_sft' .* it has none, or several, of rows"):
        with_inputs("critic_sft", "worlds", "base", "generate", "filter").check()
    with pytest.raises(
        BadInput, match=r"critic_sft trains on what generate leaves, and generate.method: apigen_mt leaves conversations that"
    ):
        with_inputs("critic_sft", "worlds", "base", "generate").check()


def test_methods_on_environments_want_a_road_of_environments(settings: Settings) -> None:
    def chosen(**names: str) -> Settings:
        sections = {step: {**settings.tree[step], "method": name} for step, name in names.items()}
        return replace(settings, tree={**settings.tree, **sections})

    with pytest.raises(BadInput, match=r"generate.method: expert_rows works on environments, and worlds.method: freeze freezes none"):
        chosen(generate="expert_rows").check()
    on_rows = chosen(worlds="environments", base="closed_vocabulary", generate="expert_rows")
    steps = tuple(replace(one, inputs=("worlds", "base", "generate")) if one.name == "critic_sft" else one for one in settings.road)
    replace(on_rows, road=Road(steps, "merge")).check()


def test_two_steps_of_a_room_share_neither_key_nor_random_streams_unless_params_ask(settings: Settings, plan: Plan) -> None:
    there = everything(plan)
    tree = {**settings.tree, "critic_sft": settings.tree["sft"]}
    alike = Plan.open(replace(settings, tree=tree), plan.store.state)
    one, two = (job(alike, name, there) for name in ("sft", "critic_sft"))
    differs = {part for part in one.key.parts if one.key.parts[part] != two.key.parts[part]}
    assert differs == {"stage", "settings"} and one.key.parts["params"] == two.key.parts["params"]
    seeds = [each.spec(Path("out"), Path("scratch"), {})["seed"] for each in (one, two)]
    assert seeds[0] == settings.shared.seed != seeds[1] and two.spec(Path("out"), Path("scratch"), {})["room"] == "sft"
    tree = {**tree, "critic_sft": {**settings.tree["sft"], "seed": settings.shared.seed}}
    assert replace(settings, tree=tree).seed("critic_sft") == settings.shared.seed


def test_evaluate_plays_the_checkpoints_of_its_inputs(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    there, seen = everything(plan), {}

    def played(job: Job, out: Path, scratch: Path, inputs: Mapping[str, Any], *more: Any) -> dict[str, Any]:
        seen[job.stage] = inputs
        (out / "about.json").write_text(f'"{job.stage} {len(more)}"')
        return {}

    for module in (evaluate, rl):
        monkeypatch.setattr(module, "own_process", played)
    monkeypatch.setattr(merge, "in_process", played)
    evaluate.run_step.fn(job(plan, "evaluate", there))
    names = ["base", "sft_unfiltered", "sft", "critic_sft", "rl_airline", "rl_retail"]
    names += ["preference_airline", "preference_retail", "merged"]
    assert [*seen["evaluate"]["models"]] == names and seen["evaluate"]["candidate"] == "merged"
    assert seen["evaluate"]["candidate_id"] == there["merge"]
    texts = {name: (path / "config.json").read_text() for name, path in seen["evaluate"]["models"].items()}
    assert texts["critic_sft"] == '"critic_sft model"' and texts["preference_retail"] == '"preference retail/model"'
    merge.run_step.fn(job(plan, "merge", there))
    assert [*seen["merge"]["experts"]] == ["preference_airline", "preference_retail"]
    assert (seen["merge"]["base"] / "config.json").read_text() == '"sft model"'
    preference = job(plan, "preference", there)
    rl.reinforce_world.fn(preference, rl.unit_key(preference, "retail", 1))
    start = seen["preference"]["sft"] / "model/config.json"
    assert start.read_text() == '"rl retail/model"', "a world's specialist goes on from its own"
    chosen = {name: plan.settings.params(name) for name in plan.settings.road.names}
    foreseen = planned(plan.settings, chosen)["evaluate"]
    assert [name for models in foreseen.models() for name in models] == names, "what params foresee is what is left"


def test_code_of_worlds_is_watched_whatever_their_step_is_called(plan: Plan) -> None:
    there, road = everything(plan), Road((Step("shops", "worlds", (), ""), Step("base", "base", ("shops",), "")), "base")
    renamed = replace(
        plan,
        settings=replace(plan.settings, road=road),
        stages={"shops": plan.stages["worlds"], "base": plan.stages["base"]},
        code={**plan.code, "tasks/worlds": "as it was before"},
    )
    assert not job(plan, "base", there).moved_worlds()
    assert replace(job(plan, "base", there), plan=renamed, inputs={"shops": there["worlds"]}).moved_worlds() == ["tasks/worlds"]


def test_the_flow_walks_the_steps_and_takes_each_with_those_it_reads(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: dict[str, list[str]] = {}

    def take(job: Job, after: list[str]) -> tuple[Artifact, str]:
        taken[job.stage] = after
        return plan.store.record(job.key, left(plan, job.stage), {"figures": {}}), job.stage

    monkeypatch.setattr("tasks.engine.cached.take", take)
    monkeypatch.setattr("flows.token_caps.Caps.check", lambda *_: None)
    walk = Walk(plan, "worlds", "evaluate")
    for step in walk.road:
        walk.take(step)
    assert taken == {step.name: [*step.inputs] for step in longer() if step.name != "decide"}
    found = survey(plan)
    assert [step.stage for step in found if step.artifact is None] == ["decide"] and found[-1].stage == "decide"
    assert Store(plan.store.state).find(job(plan, "critic_sft", {n: a.identity for n, a in walk.done.items()}).key)


def test_the_report_shows_the_steps(tmp_path: Path) -> None:
    folders, road = {}, longer()
    for step, units in {"base": ("",), "sft": ("", "unfiltered"), "critic_sft": ("",), "preference": ("shop",)}.items():
        for unit in units:
            (tmp_path / step / unit).mkdir(parents=True, exist_ok=True)
            what = "reward" if step == "preference" else "loss"
            (tmp_path / step / unit / "curves.csv").write_text(f"step,{what}\n0,1.0\n1,0.5\n")
        folders[step] = tmp_path / step
    about = {"seconds": 1.0, "cached": False, "artifact": "a", "figures": {"rows": 3}}
    stages = {"preference": {**about, "method": "grpo"}, "critic_sft": {**about, "method": "sft"}}
    found = page({"stages": stages}, folders, road)
    assert [one["title"] for one in found["learning"]] == ["base", "sft", "critic_sft", "preference in shop"]
    assert [(one["stage"], one["title"]) for one in found["stages"]] == [
        ("critic_sft", methods.header("sft", "sft").title),
        ("preference", methods.header("rl", "grpo").title),
    ]
    models = ["merged", "preference_a", "rl_a", "critic_sft", "sft", "sft_unfiltered", "base"]
    assert sorted(models, key=lambda model: place(model, road)) == [*reversed(models)]
    assert is_step("preference_a", "rl_a", models, road) and not is_step("preference_a", "rl_b", models, road)
    assert is_step("critic_sft", "base", models, road) and not is_step("critic_sft", "sft", models, road)


def test_conversations_are_found_whatever_their_steps_are_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Export, its card, regrade and bank, of a road whose worlds, conversations and marks have names of its own."""
    steps = [
        Step("shops", "worlds", (), ""),
        Step("talks", "generate", ("shops",), ""),
        Step("marks", "filter", ("shops", "talks"), ""),
    ]
    road, data, store = Road(tuple(steps), "marks"), tmp_path / "data", Store(tmp_path / "state")
    build(data, users=8, trials=2, steps=1)
    for step in steps:
        (data / step.room).rename(data / step.name)
    identities = {step.name: store.put(data / step.name) for step in steps}
    for step in steps:
        known = {name: identities[name] for name in step.inputs}
        parts = {"stage": step.name, "method": f"of_{step.name}", "params": {}, "settings": {"seed": 7}, "inputs": known}
        store.record(Key(parts), identities[step.name], {"figures": {}})
    source = find("marks", "", tmp_path, store, road)
    assert (source.room, source.generate) == ("filter", store.view(identities["talks"])) and [*source.records] == [*road.names]
    counts = export(source, tmp_path / "set", Wish(accepted_only=False))
    card = (tmp_path / "set/README.md").read_text()
    assert counts.played.total() == 32 and "conversations kept by the filter" in card and "recombined blueprints started" in card
    assert all(f"**{step}**: method `of_{step}`" in card for step in road.names) and "backends, revisions" not in card
    monkeypatch.setattr("flows.regrade.ROAD", road)
    for file in ("talks/trajectories.parquet", "marks/dataset.parquet"):
        again = regrade(data / file)
        assert again.graded == again.rows == 32 and not again.left
    with pytest.raises(BadInput, match=r"data/talks/bank\.json: there is no bank to pin\. `cairn run --to talks` makes it"):
        pin(tmp_path, "talks")
    (data / "talks/bank.json").write_text("{}")
    (tmp_path / "params").mkdir()
    assert pin(tmp_path, "talks").startswith("params/bank.json: pinned as stage talks left it")


def test_what_is_decided_about_is_the_model_that_the_step_reads(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """And, while there is no champion, families are held against the model that it goes on from."""
    there, seen = {**everything(plan), "evaluate": left(plan, "evaluate")}, {}

    def decided(job: Job, out: Path, scratch: Path, inputs: Mapping[str, Any], *_: Any) -> dict[str, Any]:
        seen.update(inputs)
        (out / "decision.json").write_text(json.dumps(job.stage))
        return {}

    monkeypatch.setattr(decide, "in_process", decided)
    decide.run_step.fn(job(plan, "decide", there))
    assert (seen["candidate"], seen["candidate_id"], seen["parent"]) == ("merged", there["merge"], "sft")
    steps = tuple(replace(step, inputs=("critic_sft", "evaluate")) if step.name == "decide" else step for step in plan.settings.road)
    other = replace(plan.settings, road=Road(steps, ROAD.candidate))
    (other.project / "dvc.yaml").rename(plan.store.state / "dvc.yaml")
    try:
        (other.project / "dvc.yaml").write_text(dvc_yaml.current((ROOT / "dvc.yaml").read_text(), other.road))
        decide.run_step.fn(job(Plan.open(other, plan.store.state), "decide", there))
    finally:
        (plan.store.state / "dvc.yaml").rename(other.project / "dvc.yaml")
    assert (seen["candidate"], seen["candidate_id"], seen["parent"]) == ("critic_sft", there["critic_sft"], "base")
    assert seen["champion"] is None
