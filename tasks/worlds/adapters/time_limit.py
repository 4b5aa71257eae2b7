"""How long code that nobody wrote for it may run in this process.

A thread cannot be ended from outside. In the main thread a timer's signal raises where the code stands, also while it sleeps or waits
for a socket. In any other thread, and where somebody else's timer ends sooner, too long a call is told once it has ended. A call that
hangs in C is ended by neither; objects in processes of their own (`tasks.worlds.adapters.object_processes`) are ended with theirs.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import NoReturn


class TookTooLong(BaseException):
    """The time is up. No Exception, so that no `except Exception` of the code goes on."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TookTooLong when the block takes longer than this, whatever else it raises."""
    since = time.monotonic()
    try:
        with _alarm(seconds):
            yield
    finally:
        if time.monotonic() - since >= seconds:
            raise TookTooLong


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    since, left = time.monotonic(), signal.getitimer(signal.ITIMER_REAL)[0]
    if threading.current_thread() is not threading.main_thread() or 0 < left <= seconds:
        yield
        return
    before = signal.signal(signal.SIGALRM, _raise)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:  # of somebody else, whose time goes on
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - since), 0.001))


def _raise(*_: object) -> NoReturn:
    raise TookTooLong
