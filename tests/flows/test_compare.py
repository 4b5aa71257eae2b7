"""`cairn compare`: in what two runs differ, and their figures paired by problem where both played the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main
from flows.compare import Comparison, compare, lines
from flows.trace import stages
from flows.trace.find import find
from flows.trace.stages import Known
from tasks.contract import schemas, tables
from tasks.contract.params import BadInput
from tasks.road import ROAD
from tests.flows.test_trace import folder, known, record, untracked

__all__ = ["folder", "known", "untracked"]
OTHER = "reports/runs/0123456789"


@pytest.fixture
def other(untracked: Known, tmp_path: Path) -> Known:
    """The project with a second run: merged with another rate, which won every test problem of the shop; nothing else is new."""
    there, store = untracked.workspace, untracked.store
    played, merged = tmp_path / "evaluate", tmp_path / "merge"
    for stage, place in (("evaluate", played), ("merge", merged)):
        shutil.copytree(store.view(there[stage]), place)
    (merged / "again.txt").write_text("other weights")
    rows = [_won(row) for row in tables.read_rows(played / "trials.parquet", schemas.TRIAL)]
    (played / "trials.parquet").unlink()
    tables.write_rows(played / "trials.parquet", schemas.TRIAL, rows)
    made = {**there, "merge": store.put(merged), "evaluate": store.put(played)}
    record(
        store,
        "merge",
        {name: there[name] for name in ("sft", "rl")},
        made["merge"],
        {},
        params={"rate": 2},
        code={"tasks/road.py": "x"},
    )
    record(store, "evaluate", {name: made[name] for name in ROAD["evaluate"].inputs}, made["evaluate"], {})
    report(untracked, made)
    return untracked


def _won(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "reward": 1} if (row["model"], row["set"], row["world"]) == ("merged", "test", "shop") else row


def report(known: Known, made: dict[str, str]) -> None:
    (known.project / OTHER).mkdir(parents=True, exist_ok=True)
    summary = {"run": "0123456789", "stages": {name: {"artifact": one} for name, one in made.items()}}
    (known.project / OTHER / "summary.json").write_text(json.dumps(summary))


def compared(known: Known, first: str = "workspace", second: str = OTHER) -> Comparison:
    return compare(known, find(known, first), find(known, second))


def test_params_inputs_and_code_of_what_differs(other: Known) -> None:
    found = compared(other)
    assert [*found.same] == ["worlds", "base", "generate", "reserve", "critique", "filter", "sft", "rl", "decide"]
    merge, evaluate = found.stages
    assert (merge.params, merge.inputs, merge.code) == (["merge.m.rate: 1 -> 2"], [], ["tasks/road.py"])
    assert evaluate.params == [] and len(evaluate.inputs) == 1 and evaluate.inputs[0].startswith("merge ")


def test_figures_are_paired_by_problem(other: Known) -> None:
    """By hand: with one trial each, the mean of (1 - reward) over the shop's problems, and half of it over both worlds of equal size."""
    trials = other.store.view(other.workspace["evaluate"]) / "trials.parquet"
    test = [row for row in tables.read_rows(trials, schemas.TRIAL) if row["set"] == "test" and row["model"] == "merged"]
    shop = [row["reward"] for row in test if row["world"] == "shop"]
    gain = 1 - sum(shop) / len(shop)
    figures = {(one.model, one.world): one for one in compared(other).figures}
    assert figures["merged", "shop"].second == 1.0 and figures["merged", "shop"].difference["mean"] == pytest.approx(gain)
    assert figures["merged", ""].difference["mean"] == pytest.approx(gain / 2) and figures["merged", ""].difference["n"] == len(test)
    assert figures["sft", "shop"].difference["mean"] == 0 and figures["sft", "shop"].difference["high"] > 0
    back = {(one.model, one.world): one for one in compared(other, OTHER, "workspace").figures}
    assert back["merged", "shop"].difference["mean"] == pytest.approx(-gain)


def test_problems_that_only_one_of_them_played_are_left_out_and_told(other: Known, tmp_path: Path) -> None:
    """Renamed problems of one world are another's; when all are, nothing is paired and each stands alone."""
    made = {**find(other, OTHER).stages}
    for worlds in (["kiosk"], ["kiosk", "shop"]):
        view, place = other.store.view(made["evaluate"]), tmp_path / "-".join(worlds)
        rows = [
            {**row, "problem_id": f"{row['problem_id']}{'x' * (row['world'] in worlds)}"}
            for row in tables.read_rows(view / "trials.parquet", schemas.TRIAL)
        ]
        tables.write_rows(place / "trials.parquet", schemas.TRIAL, rows)
        renamed = other.store.put(place)
        record(other.store, "evaluate", {"merge": made["merge"]}, renamed, {}, method="n" * len(worlds))
        report(other, {**made, "evaluate": renamed})
        found = compared(Known(other.project, other.store, other.tracking))
        if len(worlds) == 1:
            assert {one.world for one in found.figures} == {"shop"}, found.unpaired
            assert found.notes == ["of 8 and 8 test problems 4 are the same; the others are left out"]
        else:
            assert not found.figures and "they played other test problems" in found.unpaired
            assert any(line.startswith("workspace: merged in shop: ") for line in found.alone)
            assert any("evaluate.method: m -> nn" in line for line in lines(found))


def test_what_cannot_be_compared_is_told(other: Known) -> None:
    assert compared(other, "workspace", "workspace").unpaired == "both have the same evaluation"
    base = other.workspace["base"]
    assert compared(other, "workspace", base).unpaired == f"{base}: no evaluation, so no figures to compare"
    assert compared(other, "workspace", base).stages[0].unknown == "only the first has it"
    with pytest.raises(BadInput, match="'nobody': nothing here has this name"):
        compared(other, "workspace", "nobody")


def test_the_gate_speaks_where_one_met_the_other(other: Known, tmp_path: Path) -> None:
    made = {**find(other, OTHER).stages}
    gates = {"gates": [{"name": "reference", "passed": True, "explanation": "better by 0.1"}]}
    met = {"merge": made["merge"], "evaluate": made["evaluate"]}
    (place := tmp_path / "decide").mkdir()
    (place / "decision.json").write_text("{}")
    decided = other.store.put(place)
    record(other.store, "decide", met, decided, gates, opponent=other.workspace["merge"])
    report(other, {**made, "decide": decided})
    again = Known(other.project, other.store, other.tracking)
    said = f"gate reference, where {OTHER} met workspace on fresh problems: better by 0.1"
    assert compared(again).notes == [said] and compared(again, OTHER, "workspace").notes == []


def test_the_command(other: Known, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(stages, "here", lambda: other)
    assert main(["compare", "workspace", OTHER]) == 0
    text = capsys.readouterr().out
    assert "  params merge.m.rate: 1 -> 2" in text and "  merged           shop" in text
    assert main(["compare", "workspace", OTHER, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same"][0] == "worlds"
