"""How fast a model is asked: the limit's growth and cut, Retry-After, the breaker. Against the stub, and by hand where it is arithmetic."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from dataclasses import replace
from email.utils import formatdate

import pytest

from infra.stub import Stub
from tasks.contract.client import CallFailed
from tasks.players.openai_compatible import Dialect, EndpointClient, Pace, stats
from tasks.players.openai_compatible.connections import Connections
from tasks.players.openai_compatible.rate_limit import retry_after
from tests.players.conftest import QUICK, Make, questions


def test_the_limit_grows_to_what_is_allowed(make: Make, stub: Stub) -> None:
    stub.turn(latency=0.02)
    make(pace=replace(QUICK, max_in_flight=12)).complete(questions(80))
    assert stub.counts()["most"] == 12 and stats()["judge"]["limit"] == 12


def test_the_limit_settles_where_the_server_can_follow(make: Make, stub: Stub) -> None:
    """The server takes 6 at once and the user allows 64: most calls are answered, and the limit ends near 6."""
    stub.turn(latency=0.02, capacity=6)
    make(pace=replace(QUICK, max_in_flight=64, retries=10)).complete(questions(300))
    counts, figures = stub.counts(), stats()["judge"]
    assert counts["paid"] == 300 and counts["served"]["429"] == figures["throttled"] < 150
    assert 3 <= figures["limit"] <= 9 and counts["most"] <= 16


@pytest.mark.parametrize("fault", ["429_after", "429_date"])
def test_retry_after_holds_the_whole_endpoint(make: Make, stub: Stub, fault: str) -> None:
    """One call is told to wait; another role's model at the same endpoint waits too. Dates have whole seconds: 2 are at least 1."""
    stub.turn(faults={fault: 1.0}, retry_after=2.0)
    role, other = make(), make("human", dialect=Dialect("another-model"))
    thread = threading.Thread(target=lambda: role.complete(questions(1)))
    thread.start()
    while not stats().get("judge", {}).get("throttled"):
        time.sleep(0.005)
    start = time.time()
    stub.turn(faults={})
    other.complete(questions(3, schema=None))
    assert 0.9 <= min(stub.counts()["times"]) - start <= 2.3
    thread.join(10)
    assert stub.counts()["paid"] == 4


def test_a_pause_of_hours_is_an_error(make: Make, stub: Stub) -> None:
    stub.turn(faults={"429_after": 1.0}, retry_after=7200)
    start = time.monotonic()
    with pytest.raises(CallFailed, match=r"wants no calls for 7200 s.*Run again after that"):
        make().complete(questions(20))
    assert time.monotonic() - start < 5


def test_the_breaker_opens_probes_and_closes(make: Make, stub: Stub) -> None:
    """While the server fails all, few tries are made; when it is back, the same batch goes through."""
    stub.turn(faults={"500": 1.0})
    role = make(pace=replace(QUICK, pause=0.1, longest=0.4, retries=8, probes=8))
    thread_answers: list[int] = []
    thread = threading.Thread(target=lambda: thread_answers.append(len(role.complete(questions(60)))), daemon=True)
    thread.start()
    time.sleep(0.8)
    tries = stub.counts()["served"]["500"]
    assert 10 <= tries <= 10 + 16 + 8, "ten in a row, those in flight, a few probes"
    stub.turn(faults={})
    thread.join(20)
    assert thread_answers == [60]


def test_a_server_that_stays_away_is_given_up_in_words(make: Make, stub: Stub) -> None:
    """All calls of the batch fail together, and the message says what was seen; later the endpoint is tried again."""
    stub.turn(faults={"500": 1.0})
    role = make(pace=replace(QUICK, retries=20, failures=5))
    with pytest.raises(CallFailed, match=r"no answer 5 times in a row, nor to 3 probes after that; last: .*status 500.*run again"):
        role.complete(questions(200))
    assert stub.counts()["served"]["500"] < 40
    stub.turn(faults={})
    assert len(role.complete(questions(20))) == 20


def test_nobody_listens(make: Make) -> None:
    role = EndpointClient("judge", "http://127.0.0.1:9/v1", Dialect("m"), pace=QUICK)
    start = time.monotonic()
    with pytest.raises(CallFailed, match=r"at http://127.0.0.1:9/v1 failed.*the connection failed \(ConnectError"):
        role.complete(questions(100))
    assert time.monotonic() - start < 10


def test_backoff_doubles_with_jitter_up_to_the_longest() -> None:
    pace = Pace(pause=0.5, longest=30)
    for attempt, most in zip(itertools.count(1), (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0), strict=False):
        waits = [pace.backoff(attempt) for _ in range(50)]
        assert most / 2 <= min(waits) < max(waits) <= most


def test_retry_after_is_read_in_both_forms() -> None:
    """By hand: a date is counted from the server's own clock, which may be an hour off ours."""
    clock = 1_700_000_000
    assert retry_after("2.5", None) == 2.5 and retry_after("-3", None) == 0 and retry_after("nan", None) == 0
    assert retry_after(formatdate(clock + 90, usegmt=True), formatdate(clock, usegmt=True)) == 90
    assert retry_after(formatdate(clock, usegmt=True), formatdate(clock + 5, usegmt=True)) == 0
    assert retry_after("soon", None) == 0 and retry_after(None, None) == 0
    assert 50 < retry_after(formatdate(time.time() + 60, usegmt=True), None) <= 60


def test_proxies_are_the_environments_but_not_for_this_machine(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx

    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("http_proxy", "127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "inside.example.org")
    found = {
        place: Connections()._proxy(httpx.URL(f"{place}/v1"))
        for place in ("http://example.org", "http://inside.example.org", "https://a.org")
    }
    assert found == {"http://example.org": "http://127.0.0.1:9", "http://inside.example.org": "", "https://a.org": ""}
    assert len(make(name="straight").complete(questions(2))) == 2


def test_nothing_heavy_is_imported_before_the_first_call() -> None:
    code = "import sys; import tasks.players.roles, tasks.players.openai_compatible; assert not {'httpx', 'torch', 'prefect'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
