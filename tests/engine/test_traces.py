"""Conversations of an evaluation in MLflow: one trace each, which holds all that grading it again takes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tasks.contract import rows, schemas, tables
from tasks.contract.problem import Action, Problem, ToolResult
from tasks.contract.trajectory import Outcome, Trajectory
from tasks.engine import prompts, traces
from tasks.engine.artifact import Store
from tasks.engine.track import Tracker

PROBLEM = Problem(
    problem_id="p1",
    world="shop",
    split="test",
    family="cancel",
    lineage=("u1",),
    persona="Ada",
    instruction="Cancel order 7.",
    intent={"order": 7},
    actions=(Action("cancel", {"order": "7"}, "write"),),
    outputs=("25",),
    required=(),
    tags=(),
)
CALL = {"id": "c0", "type": "function", "function": {"name": "cancel", "arguments": {"order": "7"}}}
MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "You are the shop's agent."},
    {"role": "user", "content": "Cancel order 7, bitte schön."},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "no such order", "tool_call_id": "c0", "name": "cancel"},
    {"role": "assistant", "content": "It is not there."},
]


def played(trial: int, agent: str = "sft") -> Trajectory:
    outcome = Outcome(0, 0, 1, 0.5, ("asks_first",), "a", "b", "agent", "it gave up")
    call = (Action("cancel", {"order": "7"}, "write"), ToolResult(False, "no such order"))
    return Trajectory(PROBLEM, trial, MESSAGES, [call], [], "user_stop", outcome, agent, "scripted", 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An evaluation's artifact, as far as traces are made of it."""
    who = [("test", "sft", 0), ("test", "sft", 1), ("test", "merged", 0), ("baseline", "oracle", 0)]
    trials = [{"model": model, "set": which, **rows.trajectory_row(played(trial, model))} for which, model, trial in who]
    place = tmp_path / "evaluation"
    place.mkdir()
    tables.write_rows(place / "trials.parquet", schemas.TRIAL, trials)
    tables.write_rows(place / "problems.parquet", schemas.PROBLEM, [rows.problem_row(PROBLEM)])
    return place


def test_the_stores_methods_are_as_they_were() -> None:
    """Not public: when this fails after an upgrade of MLflow, look in its store for what takes a whole TraceInfo (assessments and all)
    and what takes a list of spans, change `tasks.engine.traces.write` to it, and compare with `python -m infra.bench_traces`."""
    from mlflow.store.tracking.rest_store import RestStore
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for store in (SqlAlchemyStore, RestStore):
        assert list(inspect.signature(store.start_trace).parameters) == ["self", "trace_info"], inspect.getdoc(
            test_the_stores_methods_are_as_they_were
        )
        assert list(inspect.signature(store.log_spans).parameters) == ["self", "location", "spans", "tracking_uri"], inspect.getdoc(
            test_the_stores_methods_are_as_they_were
        )


def test_what_is_left_out_is_even_and_said(folder: Path) -> None:
    found, total = traces.chosen(folder / "trials.parquet", 2)
    assert total == 4 and [(row["model"], row["trial"]) for row in found] == [("sft", 0), ("merged", 0)]
    assert len(traces.chosen(folder / "trials.parquet", 9)[0]) == 4


@contextmanager
def commits(uri: str) -> Iterator[list[Any]]:
    """One item for each transaction of the store's database that ended meanwhile, having written."""
    from mlflow.tracing.client import TracingClient
    from sqlalchemy import event

    engine, counted = TracingClient(uri).store.engine, list[Any]()

    def count(connection: Any) -> None:
        if connection.connection.dbapi_connection.in_transaction:
            counted.append(connection)

    event.listen(engine, "commit", count)
    yield counted
    event.remove(engine, "commit", count)


def test_a_trace_holds_the_conversation_and_is_written_once(folder: Path, mlflow_uri: str) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    uri = mlflow_uri
    client = MlflowClient(uri)
    experiment = client.create_experiment("cairn", artifact_location=str(folder / "files"))
    run = client.create_run(experiment).info.run_id
    model = client.create_logged_model(experiment, name="sft", source_run_id=run).model_id
    for most in (2, 3):  # the first was cut short
        trials, total = traces.chosen(folder / "trials.parquet", most)
        with commits(uri) as counted:
            traces.write(uri, experiment, run, "e.dir", folder, {"sft": model}, {}, 1_700_000_000_000, trials)
        assert len(counted) == 1, "each of its own waits for the disk"
    unfit = [{**trials[0], "trial": 7, "traj_id": "another"}, {**trials[0], "world": "unknown"}]
    with pytest.raises(MlflowException):
        traces.write(uri, experiment, run, "e.dir", folder, {}, {}, 1_700_000_000_000, unfit)
    assert traces.how_many(len(trials), total, most) == "3 of 4 conversations; tracking.traces = 3 allows no more"
    found = client.search_traces([experiment])
    assert len(found) == 3
    mine = [trace for trace in found if trace.info.trace_metadata.get("mlflow.modelId") == model]
    assert {trace.info.trace_metadata["cairn.trial"] for trace in mine} == {"0", "1"}
    assert len(client.search_traces([experiment], model_id=model)) == 2
    for trace in mine:
        given = {one.name: one.feedback.value for one in trace.info.assessments if one.feedback}
        assert given == {"state": 0, "outputs": 0, "required": 1, "policy": 0.5, "reward": 0}
        assert trace.info.trace_metadata["mlflow.trace.session"] == "p1" and trace.info.request_preview == "Cancel order 7."
        kinds = [(span.name, span.span_type, str(span.status.status_code.value)) for span in trace.data.spans]
        assert sorted(kinds) == [
            ("agent", "AGENT", "OK"),
            ("agent", "AGENT", "OK"),
            ("cancel", "TOOL", "ERROR"),
            ("human", "HUMAN", "OK"),
            ("shop", "CHAIN", "OK"),
            ("system", "SYSTEM", "OK"),
        ]
        again, was = traces.conversation_of(trace), played(int(trace.info.trace_metadata["cairn.trial"]))
        was.outcome = None
        assert again == was
        own = {name: value for name, value in trace.info.tags.items() if name != "mlflow.artifactLocation"}
        assert str(folder) not in f"{own}{trace.info.trace_metadata}{[span.to_dict() for span in trace.data.spans]}"


def test_a_run_writes_the_traces_of_an_evaluation_once(folder: Path, mlflow_uri: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Another run that computes the same evaluation adds none; its run says how many there are."""
    state = tmp_path_factory.mktemp("project") / ".cairn"
    identity = Store(state).put(folder)
    frozen = tmp_path_factory.mktemp("worlds")
    (frozen / "shop").mkdir()
    (frozen / "shop/policy.md").write_text("Ask first.")
    worlds = Store(state).put(frozen)
    facts = {
        "profile": "smoke",
        "tags": {},
        "uri": mlflow_uri,
        "prefect": {},
        "traces": 3,
        "datasets": {"worlds": "worlds"},
    }
    for run in ("a" * 64, "b" * 64):
        mlflow = Tracker(state, {"run": run, **facts}).mlflow
        mlflow.handle(("sft", "started", {"key": f"sft {run}", "method": "sft", "params": {}}))
        about = {"identity": "s.dir", "figures": {}, "seconds": 1.0, "checkpoints": {"sft": "model"}, "at": 1_700_000_000_000}
        mlflow.handle(("sft", "done", about))
        mlflow.handle(("evaluate", "started", {"key": f"e {run}", "method": "pass_k", "params": {}}))
        mlflow.handle(
            (
                "evaluate",
                "done",
                {**about, "identity": identity, "figures": {"evaluate": {}}, "checkpoints": {}, "inputs": {"worlds": worlds}},
            )
        )
    (first,) = mlflow.client.search_runs([mlflow.experiment], filter_string="tags.`cairn.traces` LIKE '3 of 4%'")
    found = mlflow.client.search_traces([mlflow.experiment])
    assert len(found) == 3 and {trace.info.trace_metadata["mlflow.sourceRun"] for trace in found} == {first.info.run_id}
    assert sum("mlflow.modelId" in trace.info.trace_metadata for trace in found) == 2
    assert {trace.info.tags["mlflow.linkedPrompts"] for trace in found} == {
        '[{"name": "cairn.shop.policy", "version": "1"}, {"name": "cairn.shop.system", "version": "1"}]'
    }
    models = mlflow.client.search_logged_models([mlflow.experiment], filter_string="name = 'sft'")
    assert {"cairn.shop.system" in model.tags.get(prompts.LINKED, "") for model in models} == {True, False}, (
        "those of the first run alone"
    )


def test_a_prompt_gets_a_version_when_its_text_is_new(tmp_path: Path, mlflow_uri: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_uri)
    (tmp_path / "shop").mkdir()
    trial = {"world": "shop", **rows.trajectory_row(played(0))}
    seen = []
    for text in ("Ask first.", "Ask twice.", "Ask first.", "Ask first."):
        (tmp_path / "shop/policy.md").write_text(text)
        seen.append([one["version"] for one in prompts.register(client, tmp_path, [trial])["shop"]])
    assert seen == [["1", "1"], ["2", "1"], ["1", "1"], ["1", "1"]]
    assert client.load_prompt("prompts:/cairn.shop.system/1").template == "You are the shop's agent."
