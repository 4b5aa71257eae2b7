"""`cairn evaluate`: an endpoint or a checkpoint on a world's problems, beside the road; graded, kept, traced and graded again like a stage's.

By hand: 4 problems x 2 trials are 8 rows of the agent in the set test; four agents without a model play each problem once, 16 rows.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main
from flows.evaluate_agent import FOLDER, Evaluated, Wish, evaluate
from flows.evaluation_text import document, lines
from flows.regrade import regrade
from flows.serving.source import Named
from flows.trace.find import find
from flows.trace.stages import Known
from flows.trace.tracking import Tracking
from infra.stub import Stub, running
from tasks.contract import schemas, tables
from tasks.contract.params import BadInput, StageFailed
from tasks.engine import process
from tasks.engine.artifact import Store
from tests.conftest import ROOT
from tests.flows.in_process import in_process
from tests.rollout import tiny

RETAIL = "tasks.worlds.library.retail:Retail"
SHOP = "tests.worlds.test_adapter_tables:Shop"
SMALL = {"worlds.freeze.size": 30, "evaluate.pass_k.max_steps": 8, "evaluate.pass_k.resamples": 100}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the params of the smoke profile; what is played is played in this process."""
    shutil.copytree(ROOT / "params", tmp_path / "project/params")
    shutil.copy2(ROOT / "params/profiles/smoke.yaml", tmp_path / "project/params/pipeline.yaml")
    monkeypatch.setattr(process, "run", in_process)
    return tmp_path / "project"


def nobody(text: str) -> Named:
    raise AssertionError("no checkpoint is asked for")


def go(project: Path, wish: Wish, named: Callable[[str], Named] = nobody) -> Evaluated:
    return evaluate(wish, project, project / ".cairn", lambda *_: None, lambda _: None, named)


def at(stub: Stub, world: str, **more: Any) -> Wish:
    given: dict[str, Any] = {"problems": 4, "trials": 2, "overrides": {**SMALL, **more.pop("overrides", {})}, **more}
    return Wish(stub.url, world, "some-model", **given)


def test_an_endpoint_is_measured_kept_traced_and_graded_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as stub:
        found = go(project, at(stub, "retail"))
        paid = stub.counts()["paid"]
        again = go(project, at(stub, "retail"))
        assert stub.counts()["paid"] == paid > 8, "a second time costs nothing: the first questions are known in this process too"
    trials = found.folder / "evaluate/trials.parquet"
    rows = list(tables.read_rows(trials, schemas.TRIAL))
    assert Counter(row["set"] for row in rows) == {"test": 8, "baseline": 16}
    assert {row["agent"] for row in rows if row["set"] == "test"} == {"some-model"}
    assert "policy" in json.loads((found.folder / "about.json").read_text())["prompt"] and found.about["prompt"]["policy"] == "full"
    assert again.folder == found.folder and again.figures == found.figures and not list((project / FOLDER).glob(".*"))
    said = document(found, "evaluate")
    assert (said["problems"], said["trials"], sorted(said["pass_k"])) == (4, 2, ["1", "2"])
    assert (
        said["pass_k"]["1"]["n"] == 4 and said["baselines"]["oracle"]["mean"] == 1.0 and said["baselines"]["do_nothing"]["mean"] == 0.0
    )
    assert any(line.startswith("pass^2") for line in lines(said)) and "a script" in "\n".join(lines(said))
    difference = regrade(trials)
    assert difference.graded == difference.rows == 24 and not difference.lost and not difference.won
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlflow.db")
    known = Known(project, Store(project / ".cairn"), Tracking())
    for row in (rows[0]["traj_id"], rows[0]["problem_id"]):
        trail = find(known, row)
        assert trail.sections[-1].kind == "evaluation" and trail.sections[-1].facts["agent"] == f"some-model {stub.url}"
    assert [one.kind for one in find(known, rows[0]["traj_id"]).sections] == ["conversation", "problem", "evaluation"]


def test_a_checkpoint_is_measured_and_told_what_the_road_tells_it_in_its_own_worlds(project: Path, tmp_path: Path) -> None:
    tiny.saved(tmp_path / "model", seed=1)
    few = {**SMALL, "evaluate.pass_k.max_turn_tokens": 6, "evaluate.pass_k.max_lost": 1.0}
    wish = Wish("some/folder", "retail", problems=2, trials=1, overrides=few)
    found = go(project, wish, lambda text: Named(tmp_path / "model", "babbler"))
    rows = list(tables.read_rows(found.folder / "evaluate/trials.parquet", schemas.TRIAL))
    mine = [row for row in rows if row["model"] == "checkpoint"]
    assert len(mine) == 2 and all(row["n_tokens"] for row in mine)
    assert found.about["prompt"] == {"tools": "none", "policy": "none"} and found.about["model"] == "babbler"
    assert document(found, "evaluate")["pass_k"]["1"]["mean"] == 0.0


def test_the_command_prints_one_document(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.saved(tmp_path / "model", seed=1)
    monkeypatch.setattr("flows.PROJECT", project)
    monkeypatch.setattr("flows.STATE", project / ".cairn")
    monkeypatch.setattr("flows.serving.source.named", lambda text: Named(tmp_path / "model", text))
    few = ["--problems", "2", "--trials", "1", "--set", "worlds.freeze.size=30", "--set", "evaluate.pass_k.max_lost=1.0"]
    assert main(["evaluate", "champion", "--world", "airline", "--json", *few, "--set", "evaluate.pass_k.max_turn_tokens=4"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["model"] == "champion" and said["problems"] == 2 and said["pass_k"]["1"]["mean"] == 0.0
    assert Path(said["trials_file"]).is_file()
    assert main(["evaluate", "champion", "--world", "airline", "--trials", "0"]) == 2
    assert "trials" in capsys.readouterr().err


def test_given_problems_are_all_played_in_a_split_or_in_all_and_a_model_plays_the_user(project: Path) -> None:
    with running() as stub:
        wish = at(stub, SHOP, problems=None, human_model="some-human")
        for split, tested, passive in (("all", 2, 2), ("train", 1, 0), ("test", 1, 2)):
            found = go(project, Wish(**{**wish.__dict__, "split": split}))
            said = document(found, "evaluate")
            assert (said["problems"], said["passive"].get("1", {}).get("n", 0)) == (tested, passive), split
            assert any("some-human" in line for line in lines(said)) and any("passive" in line for line in lines(said)) == bool(passive)
        with pytest.raises(BadInput, match=r"--split validation: |problems"):
            go(project, Wish(**{**wish.__dict__, "split": "validation"}))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"world": SHOP}, r"world shop: nobody can play its user: .*--human-url URL --human-model NAME"),
        ({"world": "retial"}, r"--world retial: no world of this name\. Did you mean 'retail'\?"),
        ({"world": "no.such:World"}, r"no package 'no'"),
        ({"model": ""}, r"which model at http.*--model"),
        ({"agent": "folder"}, r"--model some-model: goes with a server's URL"),
        ({"human_url": "http://127.0.0.1:9/v1"}, r"which model there\? Name it with --human-model"),
        ({"split": "tset"}, r"--split 'tset': no such split\. Did you mean 'test'\?"),
        ({"trials": 0}, r"trials = 0: .*greater than or equal to 1"),
        ({"problems": 100_000}, r"problems = 100000"),
        ({"overrides": {"evaluate.pass_k.max_stepz": 3}}, r"max_stepz"),
        ({"key_env": "NO_SUCH_KEY"}, r"NO_SUCH_KEY is not set"),
        ({"agent": "http://127.0.0.1:9/v1"}, r"roles\.contender"),
    ],
)
def test_what_cannot_be_evaluated_is_said_before_anything_is_played(project: Path, changed: dict[str, Any], says: str) -> None:
    wish = {"agent": "http://127.0.0.1:1/v1", "world": "retail", "model": "some-model", "overrides": SMALL, **changed}
    with pytest.raises(BadInput, match=says):
        go(project, Wish(**wish))
    assert not list((project / FOLDER).glob("*")) and not list((project / FOLDER).glob(".*")), "nothing is left of it"


def test_a_spent_budget_ends_it_and_what_was_paid_is_kept(project: Path) -> None:
    with running() as stub:
        with pytest.raises(StageFailed, match="budget"):
            go(project, at(stub, "retail", budget=6000))
        paid = stub.counts()["paid"]
        go(project, at(stub, "retail", budget=10_000_000))
        both = stub.counts()["paid"]
        evaluate(at(stub, "retail"), project, project / "other", lambda *_: None, lambda _: None, nobody)
        fresh = stub.counts()["paid"] - both
    assert 0 < paid < both <= fresh + 2, "the two first questions apart"
