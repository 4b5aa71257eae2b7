"""A process that has loaded what every training loads, and forks one for each: an import of some seconds is paid once, not a stage.

    with warm.processes(project):
        ...  # `process.run` takes its children from there

The fork is as good as new: nothing was computed before it (no kernel has threads yet, no generator was drawn from), its environment
is the one that its spec wants, and the methods' code is imported after it. For a CPU alone; where the first look shows a thread, or
kernels are to be others than those that were loaded, the child is started as ever.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tasks.engine.start import kernels

LINES = "lines.fifo"
"""In a child's scratch folder: what it tells."""
START = 120.0
"""Seconds in which the process has to have loaded everything; a child that would wait longer is started as ever."""


class Child:
    """A fork, as `subprocess.Popen` shows a child: pid, stdout, poll, wait."""

    def __init__(self, pid: int, stdout: IO[str], ended: threading.Event, codes: Mapping[int, int]) -> None:
        self.pid, self.stdout = pid, stdout
        self._ended, self._codes = ended, codes

    def poll(self) -> int | None:
        """The exit code (negative: a signal), None while it runs."""
        return self._codes[self.pid] if self._ended.is_set() else None

    def wait(self) -> int:
        """Wait for its end."""
        self._ended.wait()
        return self._codes[self.pid]


class Nursery:
    """The loaded process, from outside."""

    def __init__(self, project: Path, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tasks.engine.loaded", str(os.getpid())],
            cwd=project,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self._ready, self._usable = threading.Event(), False
        self._asking = threading.Lock()
        self._born: int | None = None
        self._answered = threading.Event()
        self._ended: dict[int, threading.Event] = {}
        self._codes: dict[int, int] = {}
        threading.Thread(target=self._listen, name="warm processes", daemon=True).start()

    def child(self, scratch: Path, environment: Mapping[str, str]) -> Child | None:
        """Fork a child for the spec in `scratch`; None where that cannot be, for whatever reason: what is read when a library is loaded
        must be what it was then."""
        if any(environment.get(name) != self.environment.get(name) for name in kernels(1)):
            return None
        with self._asking:
            if not self._ready.wait(START) or not self._usable:
                return None
            (scratch / LINES).unlink(missing_ok=True)
            os.mkfifo(scratch / LINES)
            lines = os.open(scratch / LINES, os.O_RDONLY | os.O_NONBLOCK)  # before anybody writes: nobody waits for the other
            pid = self._bear(scratch, environment)
        if pid is None:
            os.close(lines)
            return None
        os.set_blocking(lines, True)
        return Child(pid, os.fdopen(lines, encoding="utf-8"), self._ended[pid], self._codes)

    def _bear(self, scratch: Path, environment: Mapping[str, str]) -> int | None:
        self._answered.clear()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps([str(scratch), dict(environment)]) + "\n")
            self._process.stdin.flush()
        except OSError:  # it is gone
            return None
        self._answered.wait()
        return self._born

    def close(self) -> None:
        """End it; its children are over, or end with it."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            what, *about = json.loads(line)
            if what == "ready":
                self._usable = about[0]
                self._ready.set()
            elif what == "born":
                self._ended[about[0]] = threading.Event()
                self._born = about[0]
                self._answered.set()
            else:
                self._codes[about[0]] = about[1]
                self._ended[about[0]].set()
        self._usable, self._born = False, None
        for pid, ended in self._ended.items():
            self._codes.setdefault(pid, -signal.SIGKILL)
            ended.set()
        self._ready.set()
        self._answered.set()


_nursery: Nursery | None = None


@contextmanager
def processes(project: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """While the block runs, children with these kernels are forks of one loaded process. To be entered by the main thread: Linux
    ends a process with the thread that started it."""
    global _nursery
    before, mine = _nursery, Nursery(project, environment)
    _nursery = mine
    try:
        yield
    finally:
        _nursery = before
        mine.close()


def child(scratch: Path, environment: Mapping[str, str]) -> Child | None:
    """A fork for the spec in `scratch`; None where there is none to be had."""
    return _nursery.child(scratch, environment) if _nursery else None
