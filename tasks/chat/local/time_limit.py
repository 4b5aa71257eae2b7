"""A limit on how long a piece of somebody else's program may run in this thread, such as a chat template with loops in loops."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS = 5.0
"""What is rendered in milliseconds never takes as long; ours."""
LOOKS = 20
"""How often a watching thread looks in that time. Looks are counted and not seconds, since a process may be stopped meanwhile."""

_running: dict[int, list[int]] = {}
"""Thread -> a list of one number, how often its piece was found running; another list for another piece."""
_watcher = threading.Thread()


class TooLong(Exception):  # raised within the piece, as Ctrl-C would be
    """Raised in the piece that runs for too long."""


@contextmanager
def limited() -> Iterator[None]:
    """TooLong, raised within, for a piece of Python code that has run for SECONDS. One that waits in C code is not interrupted."""
    global _watcher
    thread = threading.get_ident()
    _running[thread] = [0]
    if not _watcher.is_alive():  # nor is it in a process that was forked
        _watcher = threading.Thread(target=_watch, name="time-limit", daemon=True)
        _watcher.start()
    try:
        yield
    finally:
        _running.pop(thread, None)


def _watch() -> None:
    while True:
        before = dict(_running)
        time.sleep(SECONDS / LOOKS)
        for thread, seen in before.items():
            if _running.get(thread) is seen:
                seen[0] += 1
                if seen[0] == LOOKS:
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TooLong))
