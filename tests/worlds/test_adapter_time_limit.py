"""A tool that takes too long fails by its name and leaves nothing, wherever it runs; what it would have done is not there.

Worked by hand: a nap of 60 s with a limit of 0.5 s changes a counter before it sleeps, and the counter is as it was. Limit: a call that
is quick, and a timer of somebody else's, go on as they would.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from typing import Any

import pytest

from tasks.contract.params import BadInput
from tasks.worlds.adapters import from_object, object_processes
from tasks.worlds.adapters.time_limit import TookTooLong, limited
from tasks.worlds.api.runtime import World


class Sleeper:
    """Naps that it counts."""

    def __init__(self) -> None:
        self.users = {f"u{number}": {"naps": 0} for number in range(4)}

    def nap(self, user: str, seconds: float) -> str:
        """Sleep."""
        self.users[user]["naps"] += 1
        time.sleep(seconds)
        return "slept"

    def busy(self, user: str) -> None:
        """Go on whatever happens."""
        self.users[user]["naps"] += 1
        while True:
            try:
                time.sleep(0.01)
            except Exception:
                continue

    def deaf(self, user: str) -> None:
        """Sleep, and hear no signal."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        time.sleep(60)


def dump(sleeper: Sleeper) -> Any:
    return {"users": sleeper.users}


def bring(sleeper: Sleeper, state: Any) -> None:
    sleeper.users = state["users"]


def world(**more: Any) -> World:
    about = {"name": "sleeper", "policy": "R1. Be quick.", "writes": ("nap", "busy", "deaf"), "users": "users", **more}
    return World.build(from_object(Sleeper, **about), 1, 0)


def failed(here: World, tool: str, **arguments: Any) -> str:
    """What a call is answered, which has left nothing."""
    fork = here.fork()
    result = fork.call(tool, {"user": "u1", **arguments})
    assert not result.ok and not fork.diff()
    return str(json.loads(result.content)["error"])


LATE = "tool 'nap' of world sleeper: did not answer within 0.5 s; let it answer sooner, or raise call_seconds"


def test_a_call_in_this_process_is_given_up() -> None:
    here = world(call_seconds=0.5)
    assert LATE in failed(here, "nap", seconds=60)
    assert "tool 'busy' of world sleeper: did not answer within 0.5 s" in failed(here, "busy"), "also one that catches what it can"
    fork = here.fork()
    assert fork.call("nap", {"user": "u1", "seconds": 0}).ok and "u1.naps" in fork.diff()


def test_a_call_in_another_thread_fails_once_it_has_ended() -> None:
    here, told = world(call_seconds=0.5), list[str]()
    thread = threading.Thread(target=lambda: told.append(failed(here, "nap", seconds=0.6)))
    thread.start()
    thread.join()
    assert LATE in told[0]


def test_a_process_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that a signal reaches is given up in its process; one that none reaches is ended with it, and the next has a new one."""
    monkeypatch.setattr(object_processes, "GRACE", 3.0)
    here = world(
        call_seconds=0.5, snapshot=dump, restore=bring, conversations="own_process", tools=("nap", "deaf"), writes=("nap", "deaf")
    )
    assert LATE in failed(here, "nap", seconds=60)
    assert "did not answer within 0.5 s" in (said := failed(here, "deaf")) and "The process of its object was ended" in said
    assert here.fork().call("nap", {"user": "u1", "seconds": 0}).ok


def test_the_timer_of_somebody_else_goes_on() -> None:
    before = signal.setitimer(signal.ITIMER_REAL, 500)
    handler = signal.getsignal(signal.SIGALRM)
    try:
        with pytest.raises(TookTooLong), limited(0.1):
            time.sleep(60)
        assert 400 < signal.getitimer(signal.ITIMER_REAL)[0] <= 500 and signal.getsignal(signal.SIGALRM) is handler
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before)


@pytest.mark.parametrize("seconds", [0, -1, 4000, True, "30"])
def test_a_limit_that_is_none_is_refused(seconds: Any) -> None:
    with pytest.raises(BadInput, match=r"world sleeper: call_seconds = .* must be above 0 and at most 3600\."):
        world(call_seconds=seconds)
