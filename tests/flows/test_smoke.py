"""The whole road on the smoke profile as a user runs it: offline, within its folder, twice, with DVC and MLflow beside it."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from tasks.road import ROAD
from tests.conftest import Project, copied

pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("road")]


def summary(project: Project) -> dict:  # type: ignore[type-arg]
    found: dict = json.loads((project.folder / "reports/summary.json").read_text())  # type: ignore[type-arg]
    return found


def test_it_runs_offline_and_inside_its_folder(road: Project) -> None:
    beside = road.folder.parent
    assert not (beside / "calls").exists(), f"something called {(beside / 'calls').read_text()}"
    assert list((beside / "home").rglob("*")) == [], "nothing is written outside the project"
    assert {path.name for path in beside.iterdir()} == {"project", "block", "home", "said"}
    assert "Traceback" not in (beside / "said").read_text()


def test_the_summary_has_the_promised_shape(road: Project) -> None:
    found = summary(road)
    assert found["profile"] == "smoke" and found["seconds"] > 0
    assert tuple(found["stages"]) == ROAD.names
    for stage in found["stages"].values():
        assert {"seconds", "cached", "artifact"} <= set(stage)
    used = {name: stage["used"] for name, stage in found["stages"].items()}
    for name, units, kind in (
        ("sft", {"", "unfiltered"}, "trained"),
        ("rl", {"retail", "airline"}, "produced"),
        ("evaluate", {""}, "read"),
    ):
        assert set(used[name]) == units
        for one in used[name].values():
            assert one["seconds"] > 0 and one["peak"] > 100 << 20 and one["tokens"][kind] > 0
    models = {"base", "sft_unfiltered", "sft", "rl_retail", "rl_airline", "merged"}
    assert set(found["evaluate"]) == models
    for model in models:
        for world in ("retail", "airline"):
            figures = found["evaluate"][model][world]
            assert {"mean", "low", "high", "n", "trials"} <= set(figures["pass_1"])
            assert "write" in figures["families"]
            assert 0 <= figures["pass_1"]["low"] <= figures["pass_1"]["mean"] <= figures["pass_1"]["high"] <= 1
    assert "sft-sft_unfiltered" in found["paired"]
    for world in ("retail", "airline"):
        assert set(found["baselines"][world]) >= {"do_nothing", "constant", "oracle"}
    assert {"decision", "reason", "version", "alias"} <= set(found["promotion"])


def test_the_report_is_one_readable_file(road: Project) -> None:
    text = (road.folder / "reports/report.html").read_text()
    assert text.startswith("<!doctype html>") or text.startswith("<!DOCTYPE html>")
    assert "<svg" in text and "Content-Security-Policy" in text and 'http-equiv="refresh"' not in text
    for outside in ('src="http', 'href="http://', "@import", "url(http"):
        assert outside not in text


def test_again_nothing_runs(road: Project) -> None:
    before = road.identities()
    answer = road.cairn("run")
    assert "Nothing to do: 11 stages cached" in answer.stdout
    assert all(stage["cached"] for stage in summary(road)["stages"].values())
    answer = road.dvc("repro")
    assert "Running stage" not in answer.stdout
    assert road.identities() == before
    assert road.git("status", "--porcelain").stdout.strip() in ("?? dvc.lock", "")


def test_dvc_shows_metrics_and_plots_without_times_or_ids(road: Project) -> None:
    metrics = json.loads(road.dvc("metrics", "show", "--json").stdout)
    text = json.dumps(metrics)
    assert "pass_1" in text and "seconds" not in text and ".dir" not in text
    shown = json.loads(road.dvc("plots", "show", "--json").stdout)
    assert shown
    assert not [error for error in shown.get("errors", [])], shown.get("errors")


def test_mlflow_has_one_parent_and_a_run_per_stage(road: Project) -> None:
    base = sqlite3.connect(road.folder / ".cairn/mlflow.db")
    tags: dict[str, dict[str, str]] = {}
    for run, key, value in base.execute("SELECT run_uuid, key, value FROM tags"):
        tags.setdefault(run, {})[key] = value
    parents = [run for run, found in tags.items() if "cairn.run" in found]
    nested = {found["cairn.stage"]: run for run, found in tags.items() if "mlflow.parentRunId" in found}
    assert len(parents) == 1 and set(nested) == set(ROAD.names)
    identities = road.identities()
    for stage, run in nested.items():
        assert tags[run]["cairn.artifact"] == identities[stage], "MLflow and dvc.lock name the same bytes"
    statuses = {status for (status,) in base.execute("SELECT status FROM runs")}
    assert statuses == {"FINISHED"}
    curves = {key for (key,) in base.execute("SELECT DISTINCT key FROM metrics WHERE run_uuid = ?", (nested["sft"],))}
    assert any("loss" in key for key in curves)
    (most,) = base.execute("SELECT max(n) FROM (SELECT count(DISTINCT key) AS n FROM metrics GROUP BY run_uuid)").fetchone()
    assert most < 120, "a person can read a run's metrics"
    (params,) = base.execute("SELECT count(*) FROM params WHERE run_uuid = ?", (parents[0],)).fetchone()
    assert params > 50 and tags[parents[0]]["mlflow.note.content"].startswith("Cairn's road with the profile **smoke**")
    assert {name for (name,) in base.execute("SELECT name FROM datasets")} == {"worlds", "generate", "reserve", "filter"}
    models = {name for (name,) in base.execute("SELECT name FROM logged_models")}
    assert {"base", "sft", "rl_retail", "rl_airline", "merged"} <= models


def test_prefect_shows_the_road_with_its_edges(road: Project) -> None:
    base = sqlite3.connect(road.folder / ".cairn/prefect/prefect.db")
    runs = {
        run: (name.partition(":")[0], json.loads(said))
        for run, name, said in base.execute("SELECT id, name, task_inputs FROM task_run")
    }
    steps = {name: said for name, said in runs.values() if "__parents__" not in said}  # those that no task started
    edges = {name: {runs[one["id"]][0] for found in said.values() for one in found} for name, said in steps.items()}
    assert edges == {step.name: {*step.inputs} for step in ROAD}
    assert len(runs) == len(ROAD.names) + 2, "a row for each stage and for each world's specialist, none for shards"


def test_one_world_less_keeps_the_other_specialist(road: Project, tmp_path: Path, prefect_server: str) -> None:
    """A unit of rl is cached on its own: without airline, retail's specialist is not trained again and airline's is gone."""
    less = copied(road, tmp_path / "less")
    less.environment["PREFECT_API_URL"] = prefect_server
    less.replace("params/pipeline.yaml", "  freeze: {", '  freeze: {modules: ["tasks.worlds.library.retail:Retail"], ')
    answer = less.cairn("run", "--to", "worlds")
    assert "worlds    runs" in answer.stderr
    kept = json.loads(_listing(road, "worlds"))
    left = json.loads(_listing(less, "worlds"))
    assert [one for one in kept if one["relpath"].startswith("retail/")] == left


def _listing(project: Project, stage: str) -> str:
    identity = project.identities()[stage]
    return (project.folder / ".cairn/store/files/md5" / identity[:2] / identity[2:]).read_text()
