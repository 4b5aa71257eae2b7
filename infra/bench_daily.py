"""Daily use in figures: Prefect's rows, traces in MLflow, DVC's table, the gate's errors, serving, a run while a promotion waits.

All in one command, in some minutes: on a throwaway copy of this project with the road of the profile smoke, and on local stores and
servers that end with it. How long a schedule takes to start a run is measured by `make test-services`, and read from what it kept.
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from infra import bench_gate, bench_serving, bench_traces
from infra.bench import ROOT, cairn_run, copy, environment, free_port, publish
from infra.bench_quickstart import Bound, Figure, Line, show

SCHEDULE = ROOT / ".cairn" / "bench" / "schedule.json"
"""{database: seconds}, which `make test-services` writes."""
DATABASES = ("sqlite", "postgres")
TRACES = 1000
ROUNDS = 3
"""Of the serving and of the run that has nothing to do."""
ALLOW = """
import json, shutil, tempfile
from pathlib import Path
from flows.run import open_plan
from flows.survey import survey

plan = open_plan()
step = {one.stage: one for one in survey(plan)}[plan.settings.road.decision]
with tempfile.TemporaryDirectory() as place:
    folder = Path(shutil.copytree(plan.store.view(step.artifact.identity), Path(place) / "decision"))
    said = json.loads((folder / "decision.json").read_text()) | {"decision": "promote", "reason": "all gates hold"}
    (folder / "decision.json").write_text(json.dumps(said))
    plan.store.record(step.job.key, plan.store.put(folder), {})
"""
"""Bind the decision's key to one that says yes: the smoke road's candidate is too small to be let through."""


def at_most(label: str, value: float | None, must: float, aim: float | None = None) -> Line:
    """A line of the table; value: None where it was not measured."""
    return Line(label, None if value is None else Figure(value), Bound("at most", must), None if aim is None else Bound("at most", aim))


def schedules() -> list[Line]:
    """How long a schedule of every minute took to start its first run by itself."""
    measured = json.loads(SCHEDULE.read_text()) if SCHEDULE.exists() else {}
    missing = ": not measured, run make test-services"
    return [
        at_most(f"scheduled run starts by itself, {one}, s{'' if one in measured else missing}", measured.get(one), 70)
        for one in DATABASES
    ]


def smoke_road(project: Path) -> None:
    """The road of the profile smoke, whose decision a person is to approve."""
    copy(project, "smoke")
    params = project / "params" / "pipeline.yaml"
    params.write_text(params.read_text().replace("approval: auto", "approval: manual"))
    answer = cairn_run(project)
    if answer.returncode:
        raise SystemExit(f"cairn run failed:\n{answer.stdout[-3000:]}")


def task_rows(project: Path) -> list[Line]:
    """Rows that Prefect's server shows for the road in its tab Task Runs; shards fold, so that a quickstart has as many."""
    with closing(sqlite3.connect(project / ".cairn" / "prefect" / "prefect.db")) as base:
        (rows,) = base.execute("SELECT count(*) FROM task_run").fetchone()
    return [at_most("rows in the Task Runs tab of the road", rows, 20, 12)]


def metrics_table(project: Path) -> list[Line]:
    """What `dvc metrics show` prints."""
    shown = _python(project, "-m", "dvc", "metrics", "show").splitlines()
    return [
        at_most("dvc metrics show, lines", len(shown), 40),
        at_most("dvc metrics show, columns", max(len(line.rstrip()) for line in shown), 120),
    ]


def waiting_run(project: Path) -> list[Line]:
    """`cairn run` with nothing to do while a promotion waits for a person; the first one after the decision puts it there."""
    _python(project, "-c", ALLOW)
    seconds = []
    for number in range(1 + ROUNDS):
        start = time.perf_counter()
        said = _python(project, "-m", "flows.cli", "run")
        seconds.append(time.perf_counter() - start)
        outcome = json.loads((project / "reports" / "summary.json").read_text())["promotion"]["outcome"]
        if outcome != "waiting" or "Nothing to do" not in said:
            raise SystemExit(f"run {number} was to find a promotion that waits, and nothing to do: {outcome}\n{said}")
    return [at_most("cairn run, nothing to do, a promotion waits, s", statistics.median(seconds[1:]), 5, 1.5)]


def gate() -> list[Line]:
    """Its error rates, at the sizes that it asks for."""
    rng = np.random.default_rng(0)
    size = bench_gate.problems_for(bench_gate.FALL, bench_gate.ALPHA / bench_gate.FAMILIES, bench_gate.POWER)
    caught = Figure(bench_gate.collapse_caught(bench_gate.FALL, size, rng))
    return [
        at_most("gate: an equal model promoted", bench_gate.promoted(0.0, rng), 0.06),
        Line(f"gate: a family falls by {bench_gate.FALL:g}, caught", caught, Bound("at least", 0.9)),
    ]


def traces() -> list[Line]:
    """1,000 traces in a local store, their spans alone, and the same through a tracking server."""
    whole, spans = (seconds for _, seconds in bench_traces.figures(TRACES)[:2])
    lines = [at_most(f"{TRACES} traces, local store, s", whole, 30, 10), at_most(f"{TRACES} traces, spans alone, s", spans, 10, 5)]
    with tempfile.TemporaryDirectory() as place, _tracking_server(Path(place)) as uri:
        behind = [seconds for _, seconds in bench_traces.figures(TRACES // 5, uri)[:2]]
    names = ("traces", "traces, spans alone")
    return lines + [Line(f"{TRACES // 5} {name}, tracking server, s", Figure(one)) for name, one in zip(names, behind, strict=True)]


def serving(project: Path) -> list[Line]:
    """`cairn serve` beside its own engine: a real model where it was fetched, else the smoke road's."""
    checkpoint = bench_serving.real_checkpoint() or project / "data" / "merge" / "model"
    with tempfile.TemporaryDirectory() as apart:
        copy(Path(apart), "smoke")
        return bench_serving.figures(checkpoint, Path(apart), ROUNDS)


def _python(project: Path, *arguments: str) -> str:
    command = [sys.executable, *arguments]
    answer = subprocess.run(command, cwd=project, env=environment(), check=False, text=True, capture_output=True)
    if answer.returncode:
        raise SystemExit(f"{' '.join(arguments)[:80]} failed:\n{(answer.stdout + answer.stderr)[-3000:]}")
    return answer.stdout


@contextmanager
def _tracking_server(folder: Path) -> Iterator[str]:
    """The address of a tracking server of MLflow's while the block runs."""
    port = free_port()
    place = ["--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "./kept", "--workers", "1"]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), *place]
    with (folder / "log").open("w") as log:
        without_jobs = {**environment(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        server: Any = subprocess.Popen(command, cwd=folder, env=without_jobs, stdout=log, stderr=log, start_new_session=True)
    try:
        bench_serving.wait_for(f"http://127.0.0.1:{port}/health", server, folder / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, 15)
        server.wait(60)


def main() -> int:
    """Measure and publish."""
    busy, lines = os.getloadavg()[0], list[Line]()
    with tempfile.TemporaryDirectory() as place:
        project = Path(place) / "project"
        project.mkdir()
        smoke_road(project)
        of_project = (task_rows, metrics_table, waiting_run, serving)
        parts = [schedules, gate, traces, *(partial(one, project) for one in of_project)]
        for part in parts:
            found = part()
            lines += found
            print("\n".join(f"{line.label}: {line.figure}" for line in found if line.figure), flush=True)
    show("daily use", lines)
    measured = [(line.label, line.figure.mean) for line in lines if line.figure]
    publish("daily", measured, {"traces": TRACES, "rounds": ROUNDS, "load at the beginning": round(busy, 1)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
