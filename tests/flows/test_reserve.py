"""`cairn reserve`: what is free, what a gate has used, when an evaluation is refused, how it grows."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import gate_reach, reserve, reserve_growth
from tasks.contract import schemas, tables
from tasks.contract.params import BadInput, StageFailed
from tasks.engine.artifact import Store
from tasks.engine.champion import Standing
from tasks.engine.param_files import PIPELINE
from tasks.engine.reserve import USED, Entry, read
from tasks.engine.settings import Settings, load
from tasks.worlds.adapters import from_object
from tests.conftest import ROOT
from tests.worlds.kiosk import adapted
from tests.worlds.test_problem_source import Sums, made, written


class Bare(adapted(users="_users")):  # type: ignore[misc]
    """A shop that nobody gave problems for; smoke plays 8 test problems and 6 fresh ones."""


class Adds(from_object(Sums, name="sums", policy="R1. Add.")):  # type: ignore[misc]
    """Another world without problems."""


def settings(*worlds: type, **more: Any) -> Settings:
    modules = [f"{one.__module__}:{one.__name__}" for one in worlds] or ["tasks.worlds.library.retail:Retail"]
    return load(ROOT, "smoke", [("worlds.freeze.modules", modules), *((key.replace("__", "."), value) for key, value in more.items())])


def plan_of(folder: Path, *worlds: type, **more: Any) -> Any:
    """As much of a plan as is looked at, with params files of its own."""
    if not (folder / USED).exists():
        (folder / "params").mkdir()
        shutil.copy(ROOT / USED, folder / "params")
    found = replace(settings(*worlds, **more), project=folder)
    stages = {"evaluate": SimpleNamespace(files=(USED,))}
    return SimpleNamespace(settings=found, store=Store(folder / "state"), stages=stages, experiment=False)


def proven(plan: Any, folder: Path, count: int) -> str:
    """The identity of a reserve that holds so many problems of the shop."""
    found: str = plan.store.put(written(folder / f"reserve{count}", made(count)[1]))
    return found


def evaluated(plan: Any, folder: Path, ids: Sequence[str]) -> str:
    """The identity of an evaluation whose gate played these; two models did, and a test problem beside them."""
    blank = {field.name: None for field in schemas.TRIAL}
    played = [*(("gate", model, one) for one in ids for model in ("merged", "champion")), ("test", "merged", "kiosk_t")]
    rows = [{**blank, "set": which, "model": model, "world": "kiosk", "problem_id": one} for which, model, one in played]
    tables.write_rows(folder / f"evaluate{len(ids)}" / "trials.parquet", schemas.TRIAL, rows)
    found: str = plan.store.put(folder / f"evaluate{len(ids)}")
    return found


def there(plan: Any, folder: Path, candidate: str, ids: Sequence[str], held: str = "r.dir") -> dict[str, str]:
    """Step -> identity of its result, where a candidate's gate has played these problems of a reserve."""
    return {"worlds": "w.dir", "reserve": held, "merge": candidate, "evaluate": evaluated(plan, folder, ids)}


def test_what_is_free_and_what_is_lacking(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, Bare)
    held, ids = proven(plan, tmp_path, 20), [one.problem_id for one in made(20)[1]]
    assert [str(one) for one in reserve.holdings(plan, plan.store.view(held))] == [
        "kiosk: 20 proven, 8 for test, 0 used by gates, 12 free; a gate takes 6"
    ]
    reserve.check(plan, {"reserve": held})
    reserve.check(plan, {})
    said = reserve.note(plan, there(plan, tmp_path, "a.dir", ids[8:14], held), anew=True)
    assert said == "params/reserve_used.yaml: 6 problems of the reserve are used by the gate of this candidate"
    reserve.check(plan, {"reserve": held})  # there are six left
    assert [*reserve.lines(reserve.holdings(plan, plan.store.view(held)))][
        1
    ] == "enough for 1 more candidate; `cairn reserve grow` proves more"
    reserve.note(plan, there(plan, tmp_path, "b.dir", ids[14:19], held), anew=True)
    says = "kiosk: 20 proven, 8 for test, 11 used by gates, 1 free; a gate takes 6. `cairn reserve grow 5` proves more and keeps"
    with pytest.raises(BadInput, match=f"the reserve of proven test problems does not suffice. {says}"):
        reserve.check(plan, {"reserve": held})
    reserve.check(plan, {"reserve": held, "merge": "a.dir"})  # which was the first, and may be evaluated again


def test_noted_once_and_never_by_an_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(tmp_path, Bare)
    done: Mapping[str, str] = there(plan, tmp_path, "a.dir", ["kiosk_1", "kiosk_2"])
    assert reserve.note(replace_(plan, experiment=True), done, anew=True) == ""
    monkeypatch.setenv("DVC_EXP_NAME", "exp")
    assert reserve.note(plan, done, anew=True) == ""
    monkeypatch.delenv("DVC_EXP_NAME")
    before = (tmp_path / USED).read_bytes()
    assert reserve.note(plan_of(tmp_path), done, anew=True) == "", "worlds that draw their own use no reserve"
    assert (tmp_path / USED).read_bytes() == before
    assert reserve.note(plan, done, anew=False) and not reserve.note(plan, done, anew=False) and not reserve.note(plan, done, anew=True)
    assert read(tmp_path / USED).entries == (Entry("a.dir", {"kiosk": ["kiosk_1", "kiosk_2"]}, "r.dir", "w.dir"),)
    assert (tmp_path / USED).read_text().startswith("# Which proven test problems")
    more = there(plan, tmp_path, "a.dir", ["kiosk_1", "kiosk_2", "kiosk_3"], "grown.dir")
    assert not reserve.note(plan, more, anew=False) and reserve.note(plan, more, anew=True), "evaluated again, with a larger gate"
    assert read(tmp_path / USED).entries[1:] == (Entry("a.dir", {"kiosk": ["kiosk_3"]}, "r.dir", "w.dir"),)


def test_a_note_of_an_earlier_version_gets_its_reserve_when_the_evaluation_is_found_cached(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, Bare)
    (tmp_path / USED).write_text("# Kept.\nused:\n- {candidate: a.dir, problems: {kiosk: 1 2}}\n")
    said = reserve.note(plan, there(plan, tmp_path, "a.dir", ["kiosk_1", "kiosk_2"]), anew=False)
    assert said == f"{USED}: the reserve that this candidate was evaluated with is noted: it stays with it"
    assert read(tmp_path / USED).entries == (Entry("a.dir", {"kiosk": ["kiosk_1", "kiosk_2"]}, "r.dir", "w.dir"),)


def test_a_candidate_that_was_evaluated_is_held_to_the_reserve_it_met(tmp_path: Path) -> None:
    """Its size counts, not that of the present one; where its bytes are gone that is said before anything is played."""
    plan, ids = plan_of(tmp_path, Bare), [one.problem_id for one in made(20)[1]]
    first, grown = proven(plan, tmp_path, 14), proven(plan, tmp_path, 20)
    done = there(plan, tmp_path, "a.dir", ids[8:14], first)
    reserve.note(plan, done, anew=True)
    reserve.check(plan, {**done, "reserve": grown})
    larger = plan_of(tmp_path, Bare, evaluate__pass_k__gate_problems=9)
    with pytest.raises(
        BadInput, match=rf"the candidate a.dir is held to the reserve .*{first}.* 14 proven, .* Lower evaluate.pass_k.gate"
    ):
        reserve.check(larger, {**done, "reserve": grown})
    text = (tmp_path / USED).read_text()
    (tmp_path / USED).write_text(text.replace(first, f"{'0' * 32}.dir"))
    with pytest.raises(BadInput, match=r"the candidate a.dir was evaluated with the reserve 0+.dir, whose bytes are not in the store"):
        reserve.check(plan, {**done, "reserve": grown})


def replace_(plan: Any, **changed: Any) -> Any:
    return SimpleNamespace(**{**vars(plan), **changed})


def test_it_grows_by_a_gate_or_by_what_is_asked_for(tmp_path: Path) -> None:
    found = settings(Bare)
    assert reserve.step_of(found) == "reserve"
    assert reserve.raised(found, 0) == [("reserve.apigen_mt.accepted", 20), ("reserve.apigen_mt.problems", 86)]
    assert reserve.raised(found, 14) == [("reserve.apigen_mt.accepted", 28), ("reserve.apigen_mt.problems", 120)]
    with pytest.raises(BadInput, match="there is no reserve: every world of the params draws its own problems"):
        reserve.raised(settings(), 5)


def test_recorded_conversations_are_a_reserve_as_large_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("{}\n")
    chosen = {"reserve__method": "imported", "reserve__imported__source": str(tmp_path / "log.jsonl")}
    plan = plan_of(tmp_path, Bare, **chosen)
    plan.settings.check(here=False)
    held = proven(plan, tmp_path, 13)
    says = "kiosk: 13 proven, 8 for test, 0 used by gates, 5 free; a gate takes 6. Add conversations to what reserve reads; or lower evaluate"
    with pytest.raises(BadInput, match=says):
        reserve.check(plan, {"reserve": held})
    reserve.check(plan, {"reserve": proven(plan, tmp_path, 14)})
    with pytest.raises(BadInput, match=r"reserve\.method is imported, which has as many problems as it finds. Add conversations"):
        reserve.raised(plan.settings, 0)


@pytest.mark.parametrize("edited", [False, True])
def test_growing_that_fails_puts_the_params_back_and_says_so(edited: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, path = plan_of(tmp_path, Bare), tmp_path / PIPELINE
    old = (ROOT / "params/profiles/smoke.yaml").read_text()
    path.write_text(old)

    def fails(stage: str) -> None:
        assert stage == "reserve" and "accepted: 20" in path.read_text() and "problems: 86" in path.read_text()
        if edited:
            path.write_text(path.read_text() + "# mine\n")
        raise StageFailed("too few could be proven")

    monkeypatch.setattr(reserve_growth, "run_stage", fails)
    lines = []
    with pytest.raises(StageFailed, match="too few could be proven"):
        lines.extend(reserve_growth.grow(plan, 0))  # takes what was said before the failure
    assert (path.read_text() == old) is not edited
    assert lines[:2] == [f"{PIPELINE}: reserve.apigen_mt.accepted: 20", f"{PIPELINE}: reserve.apigen_mt.problems: 86"]
    assert ("put back to what they were" if not edited else "was edited meanwhile and stays as it is") in lines[2]


def test_growing_tells_who_stays_with_what_it_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(tmp_path, Bare)
    (tmp_path / PIPELINE).write_text((ROOT / "params/profiles/smoke.yaml").read_text())
    monkeypatch.setattr(reserve_growth, "run_stage", lambda stage: None)
    assert len([*reserve_growth.grow(plan, 0)]) == 2
    reserve.note(plan, there(plan, tmp_path, "a.dir", ["kiosk_1"]), anew=True)
    assert [*reserve_growth.grow(plan, 0)][2].startswith("a candidate that was evaluated stays with the reserve that it met")


@pytest.mark.parametrize("profile", sorted(path.stem for path in (ROOT / "params/profiles").glob("*.yaml")))
def test_a_profiles_reserve_is_as_large_as_its_evaluation_and_one_gate_need(profile: str) -> None:
    found = load(ROOT, profile)
    made: Any = found.params("reserve")
    played: Any = found.params("evaluate")
    assert made.accepted == played.problems + played.gate_problems


def test_sizes_that_do_not_fit_are_refused_before_anything_runs() -> None:
    settings(Bare, Adds).check()
    says = r"evaluate: kiosk, sums draw no .* 8 test problems .* 14 of each, and reserve proves 13 .* accepted: 14 there, .* problems: 65 to"
    with pytest.raises(BadInput, match=says):
        settings(Bare, Adds, reserve__apigen_mt__accepted=13).check()
    settings(reserve__apigen_mt__accepted=13).check()
    with pytest.raises(BadInput, match=r"evaluate: kiosk draw no .* but reserve proves those of training \(lineages\)"):
        settings(Bare, reserve__apigen_mt__lineages="train").check()
    with pytest.raises(BadInput, match=r"rl: kiosk draw no problems of their own, and generate proves none of validation"):
        settings(Bare, generate__apigen_mt__validation=0.0).check()


def test_what_a_decision_can_see_is_told_of_proven_problems_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_reach, "read", lambda path: Standing("abc.dir"))
    plan = plan_of(tmp_path, Bare, decide__paired_gate__too_few="refuse")
    with pytest.raises(BadInput, match=r"With 1 problems in the smallest of 4 families.*Raise gate_problems to \d+ a world"):
        gate_reach.check(plan, ["evaluate"])
