"""Traces in MLflow: 1,000 conversations of 13 spans with the grading as feedback and a gold, in a local store; and their spans alone.

`--uri http://...` writes to a tracking server instead, through its REST interface.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from infra.bench import publish
from tasks.contract import rows, schemas, tables
from tasks.contract.problem import Action, Problem, ToolResult
from tasks.contract.trajectory import Outcome, Trajectory
from tasks.engine import traces

CALLS = 5
"""Calls of a conversation: with an agent's turn and an answer each, the system's and the human's lines, it has 13 spans."""


def _problem(number: int) -> Problem:
    gold = tuple(Action("get_order", {"order_id": f"#W{number}{one}"}, "read") for one in range(CALLS))
    words = "You want to know what became of each of your orders, and you give your e-mail address only when you are asked. " * 3
    return Problem(f"p{number}", "shop", "test", "lookup", ("u1",), "Ada", words, {"n": number}, gold, ("25",), (), ())


def _played(number: int) -> Trajectory:
    problem = _problem(number)
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "You are the shop's agent."},
        {"role": "user", "content": "Hello! What became of my orders?"},
    ]
    calls = []
    for place, action in enumerate(problem.actions):
        call = {"id": f"c{place}", "type": "function", "function": {"name": action.name, "arguments": action.arguments}}
        answer = (
            '{"order_id": "#W1", "status": "delivered", "items": [{"name": "lamp", "price": 25.0}], "address": "1 High Street"}' * 4
        )
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        messages.append({"role": "tool", "content": answer, "tool_call_id": f"c{place}", "name": action.name})
        calls.append((action, ToolResult(True, answer)))
    outcome = Outcome(1, 0, 1, 1.0, (), "a", "b", "agent", "it did not say 25")
    return Trajectory(problem, 0, messages, calls, [], "user_stop", outcome, "sft", "scripted", 0)


def figures(count: int = 1000, uri: str = "") -> list[tuple[str, float]]:
    """(label, seconds) of writing `count` traces, and of their spans alone. uri: of a tracking server, else a new local store."""
    from mlflow import MlflowClient
    from mlflow.tracing.client import TracingClient

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        played = [_played(number) for number in range(count)]
        trials = [{"model": "sft", "set": "test", **rows.trajectory_row(one)} for one in played]
        tables.write_rows(folder / "trials.parquet", schemas.TRIAL, trials)
        tables.write_rows(folder / "problems.parquet", schemas.PROBLEM, [rows.problem_row(one.problem) for one in played])
        where = uri or f"sqlite:///{folder}/mlflow.db"
        client = MlflowClient(where)
        name = f"bench-traces-{time.time_ns()}"
        experiment = client.create_experiment(name, artifact_location=None if uri else str(folder / "files"))
        run = client.create_run(experiment).info.run_id
        at = int(time.time() * 1000)
        start = time.perf_counter()
        traces.write(where, experiment, run, "whole", folder, {}, {}, at, traces.chosen(folder / "trials.parquet", count)[0])
        whole = time.perf_counter() - start
        store, waiting, spans = TracingClient(where).store, [], 0
        start = time.perf_counter()
        for number, row in enumerate(trials):
            made = traces.spans(row, rows.problem_row(played[number].problem), traces.trace_id("spans", row), at)
            spans += len(made)
            waiting += made
            if number % traces.BATCH == traces.BATCH - 1 or number == count - 1:
                store.log_spans(experiment, waiting)
                waiting = []
        alone = time.perf_counter() - start
    return [(f"{count} traces, s", whole), ("their spans alone, s", alone), ("spans of a trace", spans / count)]


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=int, default=1000)
    parser.add_argument("--uri", default="")
    given = parser.parse_args()
    publish("traces", figures(given.traces, given.uri), {"traces": given.traces, "server": bool(given.uri)})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
