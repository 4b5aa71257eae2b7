"""Prefect's server is lost under a run: no waiting, one sentence, and what was finished is kept."""

from __future__ import annotations

import logging
from pathlib import Path

import httpx
import pytest

from flows.reconcile import reconcile
from flows.server_lost import hush, is_lost, let_go, without
from tasks.contract.params import StageFailed
from tasks.engine.journal import Journal


def lost(url: str = "http://127.0.0.1:4200/api/flow_runs/1/set_state") -> httpx.ConnectError:
    return httpx.ConnectError("Connection refused", request=httpx.Request("POST", url))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (lost(), True),
        (httpx.ReadTimeout("slow", request=httpx.Request("GET", "http://prefect.example/api/health")), True),
        (httpx.ConnectError("no request is known"), True),
        (lost("http://127.0.0.1:8000/v1/chat/completions"), False),
        (OSError("Connection refused"), False),
    ],
)
def test_whose_server_it_is(error: Exception, message: bool) -> None:
    assert is_lost(error) == message


def test_a_flow_that_did_its_work_ends_well_without_its_server(monkeypatch: pytest.MonkeyPatch) -> None:
    gone: list[bool] = []
    monkeypatch.setattr("flows.server_lost.let_go", lambda: gone.append(True))
    with without(lambda: True):
        raise lost()
    assert gone == [True]
    with pytest.raises(StageFailed, match=r"does not answer any more .* What was finished is kept"), without(lambda: False):
        raise lost()
    with pytest.raises(ValueError, match="mine"), without(lambda: True):
        raise ValueError("mine")


def test_letting_go_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is still to be delivered is dropped, requests are tried once, and no event is dumped on the screen."""
    import asyncio

    from prefect._internal.concurrency import logger
    from prefect.events.worker import EventsWorker
    from prefect.settings import get_current_settings

    client = get_current_settings().client
    monkeypatch.setattr(EventsWorker, "_handle", EventsWorker._handle)
    before, loggers = client.max_retries, (logger, logging.getLogger("EventsWorker"))
    try:
        let_go()
        hush()
        worker = EventsWorker.__new__(EventsWorker)
        assert asyncio.run(worker._handle(object())) is None  # type: ignore[func-returns-value, arg-type]
        assert client.max_retries == 0 and all(one.disabled for one in loggers)
    finally:
        client.max_retries = before
        for one in loggers:
            one.disabled = False


@pytest.mark.smoke
@pytest.mark.parametrize(("ended", "state"), [(False, "Crashed"), (True, "Completed")])
def test_what_a_killed_run_left_running_is_ended_on_a_server_of_the_users(
    prefect_server: str, tmp_path: Path, ended: bool, state: str
) -> None:
    """A run that was killed is crashed; one that ended while the server was lost is completed; another run is left alone."""
    from prefect import flow, task
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect.states import Running

    @flow
    def road() -> None: ...

    @task
    def sft() -> None: ...

    with temporary_settings({PREFECT_API_URL: prefect_server}), get_client(sync_client=True) as client:
        runs = [client.create_flow_run(road, state=Running()) for _ in range(2)]
        steps = [client.create_task_run(sft, run.id, dynamic_key="0", state=Running()) for run in runs]
        journal = Journal(
            tmp_path, "a" * 64, {"run": "a" * 64, "uri": "", "prefect": {"flow_run": str(runs[0].id), "url": prefect_server}}
        )
        if ended:
            journal.add("", "closed", {"status": "FINISHED", "linked": {}, "others": 1})
        assert reconcile(tmp_path) == [], "it is alive"
        journal.close(delivered=False)
        assert reconcile(tmp_path) == [f"run aaaaaaaaaa is over: Prefect shows its flow run and 1 task runs as {state}"]
        found = [client.read_flow_run(run.id).state for run in runs] + [client.read_task_run(step.id).state for step in steps]
        assert [one.name if one else "" for one in found] == [state, "Running", state, "Running"]
        assert reconcile(tmp_path) == [] and not list((tmp_path / "journals").iterdir())
