"""The live view: lines for people, artifacts in Prefect's UI, and that a view never ends a run."""

from __future__ import annotations

import io
import threading
import time
from typing import Any

import pytest

from flows.call_figures import lines
from flows.console import Console
from flows.run_display import Artifacts

FIGURES: dict[str, Any] = {
    "model": "big",
    "calls": 90,
    "cached": 10,
    "calls_per_second": 2.0,
    "tokens_per_second": 150.4,
    "in_flight": 8,
    "limit": 16,
    "tokens_in": 12_000,
    "tokens_out": 3_000,
    "money": 0.5,
    "throttled": 2,
    "retries": 0,
    "refusals": 0,
    "truncations": 0,
    "unreadable": 1,
}
ABOUT = {"roles": {"judge": FIGURES}, "done": 25, "total": 100, "seconds": 60.0, "last": False}


def test_a_line_by_hand() -> None:
    """A hundred answers for 25 items: three hundred more at two a second are 150 seconds."""
    assert lines(ABOUT) == [
        "judge big: 90 calls, 10 kept, 2.0/s, 8 of 16 in flight, 12,000 + 3,000 tokens (150/s), money 0.5000, 2 throttled, "
        "1 unreadable, 150 s left"
    ]
    long = {**ABOUT, "done": 1}
    assert lines(long)[0].endswith("82 min left") and "left" not in lines({**ABOUT, "done": 0})[0]
    quiet = {**FIGURES, "cached": 0, "money": 0.0, "throttled": 0, "unreadable": 0}
    assert lines({**ABOUT, "roles": {"judge": quiet}, "done": 100}) == [
        "judge big: 90 calls, 2.0/s, 8 of 16 in flight, 12,000 + 3,000 tokens (150/s)"
    ]


def test_what_was_odd_is_told_with_its_remedy() -> None:
    """Short while it goes on; at the end how many of how many, what to do, and the first."""
    odd = {
        "odd": {"calls_as_text": 34, "context_length": 6},
        "requests": 100,
        "offered": 34,
        "examples": {"calls_as_text": "answer 0a1b: '<tool_call>'"},
    }
    about = {**ABOUT, "roles": {"agent": {**FIGURES, **odd}}}
    assert "6 lost (context_length), 34 calls_as_text" in lines(about)[0] and len(lines(about)) == 1
    _, text, long = lines({**about, "last": True})
    assert text.startswith("agent odd answers: 34 of 34 calls_as_text: ") and "--tool-call-parser" in text and "0a1b" in text
    assert long.startswith("agent no answer: 6 of 100 context_length: ") and "--max-model-len" in long


def test_a_stage_in_which_nothing_was_won_says_so() -> None:
    told = io.StringIO()
    Console(told)("generate", "done", {"identity": "0123456789abcdef", "seconds": 2.0, "figures": {"warning": "none of 9 was won"}})
    assert told.getvalue().splitlines()[1] == "generate  warning  none of 9 was won"


def test_a_stage_that_a_budget_ended_says_so() -> None:
    told = io.StringIO()
    about = {"identity": "0123456789abcdef", "seconds": 2.0}
    Console(told)("generate", "done", {**about, "figures": {"stopped": "the next model call was not made"}})
    Console(told)("critique", "done", {**about, "figures": {"stopped": ""}})
    assert told.getvalue().splitlines() == [
        "generate  done     0123456789ab in 2.0 s",
        "generate  stopped  before everything was made: the next model call was not made",
        "critique  done     0123456789ab in 2.0 s",
    ]


def test_outside_a_run_nothing_is_shown_and_nothing_fails() -> None:
    Artifacts()("generate", "progress", {"done": 1, "total": 2, "note": "retail blueprints"})
    Artifacts()("generate", "calls", ABOUT)


@pytest.mark.smoke
def test_prefect_shows_progress_and_calls(prefect_server: str) -> None:
    """One artifact for each part, brought up to date, in the task run that it is about."""
    from prefect import flow, task
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterTaskRunId
    from prefect.runtime import task_run
    from prefect.settings import PREFECT_API_URL, temporary_settings

    shown, runs = Artifacts(every=0.0), []

    @task(log_prints=False)
    def work() -> None:
        runs.append(task_run.id)
        shown("generate", "started", {})
        training = threading.Thread(target=shown, args=("generate", "progress", {"done": 1, "total": 4, "note": "unfiltered loss"}))
        training.start()
        training.join()
        for done in (1, 2):
            shown("generate", "progress", {"done": done, "total": 4, "note": "retail blueprints: 3 accepted"})
        shown("generate", "calls", {**ABOUT, "last": True})

    @flow
    def road() -> None:
        work()
        shown.close()

    with temporary_settings({PREFECT_API_URL: prefect_server}):
        road()
        with get_client(sync_client=True) as client:
            ours = ArtifactFilter(task_run_id=ArtifactFilterTaskRunId(any_=runs))  # other tests use the server too
            told = client.read_artifacts(artifact_filter=ours)
    found = {artifact.key: artifact for artifact in told}
    assert found["generate-retail"].data == 50.0 and "3 accepted" in str(found["generate-retail"].description)
    assert found["generate-calls"].data == 25.0 and "big: 90 calls" in str(found["generate-calls"].description)
    assert found["generate-unfiltered"].data == 25.0
    assert all(artifact.task_run_id for artifact in found.values()), "also what a stage's threads told"


def test_progress_never_stands_in_the_way_of_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes its time: a thousand steps go by at once, of each artifact the latest is sent, and the end waits a little."""
    sent: list[tuple[str, float]] = []
    slow, told = threading.Event(), []

    def write(self: Artifacts, key: str, percent: float, said: str) -> None:
        slow.wait(10)
        sent.append((key, percent))

    monkeypatch.setattr("flows.run_display._in_a_run", lambda: True)
    monkeypatch.setattr(Artifacts, "_write", write)
    shown = Artifacts(every=0.0, tell=told.append)
    start = time.monotonic()
    for done in range(1, 1001):
        shown("sft", "progress", {"done": done, "total": 1000, "note": "steps"})
        shown("rl", "progress", {"done": done, "total": 2000, "note": "steps"})
    shown("sft", "progress", {"done": 0, "total": 1000, "note": "9 of 9 parameters train"})  # no part is named by a figure
    assert time.monotonic() - start < 2.0 and sent == []
    slow.set()
    shown.close()
    assert len(sent) <= 4 and dict(sent) == {"sft-steps": 100.0, "rl-steps": 50.0} and told == []


def test_the_loss_of_the_server_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx

    tried: list[str] = []
    told: list[str] = []

    def write(self: Artifacts, key: str, percent: float, said: str) -> None:
        tried.append(key)
        raise httpx.ConnectError("Connection refused")

    monkeypatch.setattr("flows.run_display._in_a_run", lambda: True)
    monkeypatch.setattr(Artifacts, "_write", write)
    for pause, most in ((60.0, 1), (0.0, 20)):
        shown = Artifacts(every=0.0, tell=told.append, pause=pause)
        for done in range(1, 21):
            shown("sft", "progress", {"done": done, "total": 20, "note": "steps"})
            time.sleep(0.002)
        shown.close()
        assert 1 <= len(tried) <= most
        tried.clear()
    assert len(told) == 2 and told[0].startswith(
        "Prefect's server does not answer any more (ConnectError: Connection refused); the run goes on"
    )


def test_a_stage_that_asks_a_server_tells_how_it_goes(tmp_path: Any) -> None:
    """Against a real server: the watcher hears of the role's calls while they go on, and once more at the end; tokens and items beside
    them. Without calls it hears nothing."""
    from infra.stub import running
    from tasks.contract.client import Request
    from tasks.engine.call_figures import telling
    from tasks.players.openai_compatible import Dialect, EndpointClient, Setting

    heard: list[dict[str, Any]] = []

    def watch(stage: str, event: str, about: Any) -> None:
        assert (stage, event) == ("generate", "calls")
        heard.append(dict(about))

    with telling(watch, "generate", "nobody", lambda done, total, note: None, every=0.01) as progress:
        progress(1, 2, "")
    assert heard == []
    with running(latency=0.2) as stub:
        client = EndpointClient("judge", stub.url, Dialect("m"), setting=Setting(tmp_path, "this-run"))
        passed: list[tuple[int, int, str]] = []
        with telling(watch, "generate", "this-run", lambda *about: passed.append(about), every=0.05) as progress:
            progress(1, 4, "half")
            client.complete([Request([{"role": "user", "content": f"{number}"}], seed=number) for number in range(5)])
            progress(2, 4, "more")
    assert passed == [(1, 4, "half"), (2, 4, "more")]
    assert any(about["roles"]["judge"]["in_flight"] for about in heard[:-1]) and not any(about["last"] for about in heard[:-1])
    last = heard[-1]
    assert last["last"] and (last["done"], last["total"]) == (2, 4) and last["roles"]["judge"]["calls"] == 5
    assert last["roles"]["judge"]["tokens_per_second"] > 0 and lines(last)[0].startswith("judge m: 5 calls")


def test_progress_ends_at_the_end_of_a_stage_that_needed_less(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, float, str]] = []
    monkeypatch.setattr("flows.run_display._in_a_run", lambda: True)
    monkeypatch.setattr(Artifacts, "_write", lambda self, key, percent, text: sent.append((key, percent, text)))
    shown = Artifacts()
    shown("generate", "progress", {"done": 1, "total": 4, "note": "retail blueprints"})
    shown("filter", "progress", {"done": 1, "total": 2, "note": "rows"})
    shown("generate", "done", {})
    shown.close()
    assert ("generate-retail", 100.0, "ended at 25 %: 1 of 4 retail blueprints") in sent
    assert [percent for key, percent, _ in sent if key == "filter-rows"] == [50.0]
