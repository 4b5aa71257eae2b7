"""The table of `make bench-daily`: what it reads, and how it compares, without a road or a server."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from infra import bench_daily
from infra.bench_daily import schedules, task_rows
from infra.bench_serving import _compared


def test_a_schedule_that_was_not_measured_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_daily, "SCHEDULE", tmp_path / "schedule.json")
    assert [(line.figure, "not measured, run make test-services" in line.label) for line in schedules()] == [(None, True)] * 2
    bench_daily.SCHEDULE.write_text(json.dumps({"sqlite": 71.0}))
    sqlite, postgres = schedules()
    assert sqlite.verdict == "missed" and "not measured" not in sqlite.label
    assert postgres.figure is None and "not measured" in postgres.label


def test_rows_are_those_of_the_runs_own_server(tmp_path: Path) -> None:
    (tmp_path / ".cairn/prefect").mkdir(parents=True)
    with sqlite3.connect(tmp_path / ".cairn/prefect/prefect.db") as base:
        base.execute("CREATE TABLE task_run (id)")
        base.executemany("INSERT INTO task_run VALUES (?)", [(number,) for number in range(13)])
    (line,) = task_rows(tmp_path)
    assert line.verdict == "met, aim missed"


def test_serving_is_compared_by_medians_over_rounds() -> None:
    engine = [([1.0, 1.0], 2.0), ([1.0, 1.0], 2.0), ([9.0, 9.0], 9.0)]
    served = [([1.0, 1.2], 2.4), ([1.1, 1.1], 2.4), ([1.1, 8.0], 8.0)]
    lines = {line.label.partition(": ")[2]: line for line in _compared("2 at once", [10, 10, 10], engine, served)}
    first, rate = lines["first token, served / engine"], lines["tokens/s, engine / served"]
    assert first.figure and rate.figure and (round(first.figure.mean, 3), round(rate.figure.mean, 3)) == (1.1, 1.2)
    assert rate.verdict == "missed"
