"""`mlflow.genai.evaluate` over stored traces says of each conversation what `cairn regrade` says of its row."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.regrade import regrade
from flows.trace_grading import PREFIX, grading
from tasks.contract import rows, schemas, tables
from tasks.contract.trajectory import GRADING
from tasks.engine import traces
from tests.flows.artifacts import build


def test_the_verdicts_are_those_of_regrade(tmp_path: Path, mlflow_uri: str) -> None:
    """Of five conversations in two worlds, one of which was stored with a wrong verdict."""
    import mlflow

    build(tmp_path, users=4, trials=1, steps=5)
    made, folder = tmp_path / "generate", tmp_path / "evaluate"
    blueprints = [row for row in tables.read_rows(made / "blueprints.parquet", schemas.BLUEPRINT) if row["status"] == "accepted"]
    tables.write_rows(folder / "problems.parquet", schemas.PROBLEM, [rows.problem_row(rows.problem_of(row)) for row in blueprints])
    stored = [{**row, "model": "sft", "set": "test"} for row in tables.read_rows(made / "trajectories.parquet", schemas.TRAJECTORY)]
    stored = stored[:3] + stored[-2:]
    stored[0]["state"] = stored[0]["reward"] = 1 - stored[0]["state"]
    tables.write_rows(folder / "trials.parquet", schemas.TRIAL, stored)
    found = regrade(folder / "trials.parquet", out=tmp_path / "again.parquet")
    assert found.graded == 5 and {*found.lost, *found.won} >= {"state"}
    wanted = {row["traj_id"]: row for row in tables.read_rows(tmp_path / "again.parquet", schemas.TRIAL)}
    experiment = mlflow.create_experiment("cairn", artifact_location=str(tmp_path / "files"))
    mlflow.set_experiment(experiment_id=experiment)
    run = mlflow.MlflowClient().create_run(experiment).info.run_id
    traces.write(
        mlflow_uri, experiment, run, "e.dir", folder, {}, {}, 1_700_000_000_000, traces.chosen(folder / "trials.parquet", 100)[0]
    )
    data = mlflow.search_traces(locations=[experiment], return_type="pandas")
    result = mlflow.genai.evaluate(data=data, scorers=[grading(tmp_path / "worlds")])
    parts = (*GRADING, "reward")
    for part in parts:
        mean = sum(row[part] for row in wanted.values()) / 5
        assert result.metrics[f"{PREFIX}{part}/mean"] == pytest.approx(mean)
    for trace in mlflow.search_traces(locations=[experiment], return_type="list"):
        given = {one.name: one.feedback.value for one in trace.info.assessments if one.feedback}
        row = wanted[trace.data.spans[0].get_attribute(traces.PLAYED)["traj_id"]]
        assert [given[f"{PREFIX}{part}"] for part in parts] == [pytest.approx(row[part]) for part in parts]
