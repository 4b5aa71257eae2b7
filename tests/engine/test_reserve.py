"""What gates have used of the reserve, as a file and in the key of the evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from tasks.contract.params import BadInput, StageFailed
from tasks.engine import dvc_lock
from tasks.engine.dotted import dig
from tasks.engine.job import as_read, job_of
from tasks.engine.key import Key, key_of
from tasks.engine.param_files import PIPELINE, ROLES_LOCK
from tasks.engine.plan import Plan
from tasks.engine.reserve import USED, Entry, Used, read
from tasks.engine.settings import load
from tasks.evaluate.task import inputs as evaluation_inputs
from tests.conftest import ROOT

ONE = Used(
    (
        Entry("a.dir", {"shop": ["shop_1", "shop_2"]}, "r1.dir", "w1.dir"),
        Entry("b.dir", {"shop": ["shop_3"], "inn": ["inn_1"]}),
    )
)
"""The second as earlier versions wrote it."""
MET = ("r2.dir", "w1.dir")
"""A larger reserve, in the same worlds."""


def test_a_candidate_is_held_to_what_others_used_before_it(tmp_path: Path) -> None:
    assert ONE.before("a.dir") == {} and ONE.before("b.dir") == {"shop": ["shop_1", "shop_2"]}
    assert ONE.before("new.dir") == {"inn": ["inn_1"], "shop": ["shop_1", "shop_2", "shop_3"]}
    (tmp_path / "used.yaml").write_text(yaml.safe_dump(ONE.tree()))
    assert read(tmp_path / "used.yaml") == ONE, "what is written is what is read"


def test_noting_makes_nothing_stale() -> None:
    """Neither the candidate's own evaluation nor one before it, nor one after it when it is evaluated again on more problems."""
    noted = ONE.noted("c.dir", {"shop": ["shop_4"]}, *MET)
    assert noted.entries[:2] == ONE.entries and noted.before("c.dir") == ONE.before("c.dir")
    assert noted.noted("c.dir", {"shop": ["shop_4"]}, *MET) is noted
    again = noted.noted("a.dir", {"shop": ["shop_1", "shop_9"]}, *MET)
    assert again.entries[-1] == Entry("a.dir", {"shop": ["shop_9"]}, "r1.dir", "w1.dir"), "with the reserve that it met first"
    assert [again.before(one) for one in ("a.dir", "b.dir", "c.dir")] == [noted.before(one) for one in ("a.dir", "b.dir", "c.dir")]
    assert "shop_9" in again.before("new.dir")["shop"]
    assert ONE.noted("new.dir", {"shop": []}, *MET) is ONE, "an evaluation without a gate uses nothing"


def test_a_candidate_stays_with_the_reserve_that_it_met_in_these_worlds() -> None:
    assert (
        ONE.first_reserve("a.dir", "w1.dir") == "r1.dir"
        and not ONE.first_reserve("a.dir", "w2.dir")
        and not ONE.first_reserve("new.dir", "w1.dir")
    )
    filled = ONE.noted("b.dir", {"shop": ["shop_3"]}, *MET)
    assert not ONE.first_reserve("b.dir", "w1.dir") and filled.first_reserve("b.dir", "w1.dir") == "r2.dir"
    assert [one.problems for one in filled.entries] == [one.problems for one in ONE.entries], "an entry without one gets it, no other"
    elsewhere = ONE.noted("a.dir", {"shop": ["shop_1"]}, "r9.dir", "w2.dir")
    assert elsewhere.first_reserve("a.dir", "w2.dir") == "r9.dir" and elsewhere.first_reserve("a.dir", "w1.dir") == "r1.dir"
    assert elsewhere.entries[-1].problems == {}, "the same problems are used once"


def test_evaluation_reads_the_reserve_that_its_candidate_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its key, by what it opens and by what dvc.lock is held against; no other stage, and no other candidate."""
    plan = Plan.open(load(ROOT, "smoke"), tmp_path)
    met = plan.store.put(folder(tmp_path / "small", "two proven"))
    inputs = {name: f"{name}.dir" for name in plan.stages["evaluate"].inputs}
    noted = Used((Entry("merge.dir", {"shop": ["shop_1"]}, met, "worlds.dir"),))
    monkeypatch.setattr("tasks.engine.reserve.read", lambda path: noted)
    before, after = (job_of(plan, "evaluate", {**inputs, "reserve": one}) for one in (met, "larger.dir"))
    assert before.key == after.key and after.inputs["reserve"] == "larger.dir"
    assert (after.of("generate") / "problems").read_text() == "two proven"
    for changed in ({"merge": "other.dir"}, {"worlds": "other.dir"}):
        assert as_read(plan, "evaluate", {**inputs, **changed})["reserve"] == "reserve.dir"
    other = {name: f"{name}.dir" for name in plan.stages["decide"].inputs}
    assert as_read(plan, "decide", other) == other


def test_what_dvc_holds_of_a_smaller_or_larger_reserve_is_the_same_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """dvc.lock names the reserve that lies in data/: what it holds is taken over whichever that was, and noted anew once it is another."""
    plan = Plan.open(load(ROOT, "smoke"), tmp_path)
    noted = Used((Entry("merge.dir", {"shop": ["shop_1"]}, "small.dir", "worlds.dir"),))
    monkeypatch.setattr("tasks.engine.reserve.read", lambda path: noted)
    about = plan.stages["evaluate"]
    inputs = {name: f"{name}.dir" for name in about.inputs} | {"reserve": "larger.dir"}
    job = job_of(plan, "evaluate", inputs)
    key = Key({**job.key.parts, "versions": {}, "kernels": {}, "code": {}})
    for file in about.files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text((ROOT / file).read_text())

    def taken_over(lying: Mapping[str, str]) -> tuple[str | None, bool]:
        params = {PIPELINE: {name: dig(plan.settings.tree, name) for name in about.settings}}
        params |= {ROLES_LOCK: dict(key.parts["servers"])} if about.roles else {}
        params |= {file: yaml.safe_load((tmp_path / file).read_text()) or {} for file in about.files}
        deps = [{"path": f"data/{name}", "md5": identity} for name, identity in lying.items()]
        entry = {"deps": deps, "params": params, "outs": [{"path": "data/evaluate", "md5": "e.dir"}]}
        (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": {"evaluate": entry}}))
        found = dvc_lock.held(tmp_path, about, key, plan.settings.tree, lambda some: as_read(plan, "evaluate", some))
        return found, dvc_lock.up_to_date(tmp_path, about, key, plan.settings.tree, "e.dir", {}, inputs)

    assert taken_over(inputs) == ("e.dir", True)
    assert taken_over({**inputs, "reserve": "small.dir"}) == ("e.dir", False)
    assert taken_over({**inputs, "merge": "other.dir"}) == (None, False), "another candidate met the reserve that lay there"


def test_a_reserve_whose_bytes_are_gone_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan.open(load(ROOT, "smoke"), tmp_path)
    inputs = {name: plan.store.put(folder(tmp_path / name, name, name in ("base", "merge"))) for name in plan.stages["evaluate"].inputs}
    noted = Used((Entry(inputs["merge"], {"shop": ["shop_1"]}, f"{'0' * 32}.dir", inputs["worlds"]),))
    monkeypatch.setattr("tasks.engine.reserve.read", lambda path: noted)
    job = job_of(plan, "evaluate", inputs)
    with pytest.raises(
        StageFailed, match=rf"{inputs['merge']} was evaluated with the reserve 0+\.dir, whose bytes are not in the store"
    ):
        evaluation_inputs(job)


def folder(path: Path, text: str, model: bool = False) -> Path:
    (path / "model").mkdir(parents=True)
    (path / "problems").write_text(text)
    if model:
        (path / "model/config.json").write_text("{}")
    return path


def test_the_key_of_the_evaluation_has_what_others_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan.open(load(ROOT, "smoke"), tmp_path)
    inputs = {name: f"{name}.dir" for name in plan.stages}

    def used(stage: str, noted: Used) -> object:
        monkeypatch.setattr("tasks.engine.reserve.read", lambda path: noted)
        return key_of(plan.settings, plan.stages[stage], inputs, plan.store.hashes).parts.get("used")

    assert USED in plan.stages["evaluate"].files and USED not in plan.stages["decide"].files
    assert used("evaluate", Used()) is None and used("merge", ONE) is None and used("decide", ONE) is None
    first, later = used("evaluate", ONE), used("evaluate", ONE.noted("merge.dir", {"shop": ["shop_4"]}, *MET))
    assert first == later is not None, "what the candidate used itself is no part of it"
    assert used("evaluate", ONE.noted("c.dir", {"shop": ["shop_4"]}, *MET)) != first


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the key 'used' is missing"),
        ("used: 3", "the key 'used' is missing, or no list"),
        ("used: [a.dir]", "'a.dir': allowed is {candidate: <artifact>, problems: {<world>: <ids>}}"),
        ("used: [{candidate: 3, problems: {}}]", "allowed is"),
        ("used: [{candidate: a.dir, reserve: r.dir, problems: {}}]", "reserve and worlds name an artifact each, or both are left out"),
        ("used: [{candidate: a.dir, reserve: 3, worlds: w.dir, problems: {}}]", "reserve and worlds name an artifact each"),
        ("used: [{candidate: a.dir, problems: {shop: [1]}}]", "problems.shop: expected ids, separated by spaces"),
    ],
)
def test_another_form_is_refused_in_words(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "used.yaml").write_text(text)
    with pytest.raises(BadInput) as error:
        read(tmp_path / "used.yaml")
    assert says in str(error.value) and "used.yaml" in str(error.value)


def test_the_committed_file_can_be_read() -> None:
    assert isinstance(read(ROOT / USED), Used)
