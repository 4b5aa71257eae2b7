"""The console's lines in the Logs tab of Prefect's UI."""

from __future__ import annotations

import threading

import pytest

from flows.run_logs import Logs

DONE = {"identity": "0123456789abcdef", "seconds": 2.0, "figures": {"warning": "none of 9 was won"}}


def test_prefect_has_the_lines_of_the_run(prefect_server: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Each once, at the run or the task that it is about, also what a stage's threads say; none of them on the console again."""
    from prefect import flow, task
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
    from prefect.runtime import flow_run, task_run
    from prefect.settings import PREFECT_API_URL, temporary_settings

    logs, ids = Logs(), {}

    @task
    def work() -> None:
        ids["task"] = task_run.id
        logs("generate", "started", {"method": "scripts"})
        thread = threading.Thread(target=logs, args=("generate", "progress", {"done": 1, "total": 4, "note": "retail"}))
        thread.start()
        thread.join()
        logs("generate", "done", DONE)

    @flow
    def road() -> None:
        ids["flow"] = flow_run.id
        work()
        logs("promote", "note", {"note": "refused: gain 0.01"})
        logs.close()

    logs("cairn", "note", {"note": "outside of a run"})
    with temporary_settings({PREFECT_API_URL: prefect_server}):
        road()
        with get_client(sync_client=True) as client:
            found = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[ids["flow"]])))
    ours = sorted((one for one in found if one.name.startswith("cairn.")), key=lambda one: one.timestamp)
    assert [(one.name, one.message, str(one.task_run_id) == ids["task"]) for one in ours] == [
        ("cairn.generate", "runs     scripts", True),
        ("cairn.generate", "1/4 retail", True),
        ("cairn.generate", "done     0123456789ab in 2.0 s", True),
        ("cairn.generate", "warning  none of 9 was won", True),
        ("cairn.promote", "refused: gain 0.01", False),
    ]
    assert "0123456789ab" not in "".join(capfd.readouterr())
