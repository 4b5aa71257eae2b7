"""Services that are started here: so many processes at once, each with a port, a folder and a state of its own.

They end with the process that started them, in which a thread of its own starts them: Linux would end them with the thread.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tasks.worlds.adapters import bound_process
from tasks.worlds.adapters.foreign_state import SourceDown, SourceFailed
from tasks.worlds.adapters.openapi_http import Service
from tasks.worlds.adapters.openapi_state import Calls
from tasks.worlds.adapters.placeholders import NotSet, Placeholders
from tasks.worlds.api.tools import Refused

CLOSE = 5.0
"""Seconds for a service to end before it is killed; ours."""
ENDING = 0.5
"""Seconds that a service which answers no more is given to have ended; ours."""
LAST = 400
"""Characters of what a service wrote last, in messages."""
_PASSED = ("HOME", "PATH", "USER", "LANG", "PYTHONPATH", "VIRTUAL_ENV")
_open: weakref.WeakSet[Process] = weakref.WeakSet()


@dataclass(frozen=True)
class Command:
    """How a service is started. words: program and arguments; "{port}" and "{seat}" are filled in, `python` is the one that runs Cairn.
    env: environment besides PATH and HOME; "${NAME}" is filled in too. most: processes at once. seconds: until it takes connections.
    service: makes it out of port and folder."""

    words: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    most: int = 8
    seconds: float = 60.0
    service: Callable[[int, Path], Service] = field(kw_only=True)


class Process:
    """One service. `holds` and `note` say which state it is in. fresh: nothing was called in it since it was started."""

    def __init__(self, command: Command, starter: ThreadPoolExecutor) -> None:
        self._command, self._starter, self.free = command, starter, False
        self._held: Calls | None = None
        self._begin()

    def _begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cairn-service-"))
        (self.folder / "seat").mkdir()
        self.port, self._placeholders = _free_port(), Placeholders(self.folder / "seat")
        with (self.folder / "log").open("wb") as log:
            self._process = self._starter.submit(self._started, log).result()
        _open.add(self)
        self.fresh = True
        self.service = self._command.service(self.port, self.folder / "seat")
        self.service.hide = self._placeholders.hide
        end = time.monotonic() + self._command.seconds
        while not _listens(self.port):
            if self._process.poll() is not None or time.monotonic() > end:
                why = "ended" if self._process.poll() is not None else f"takes no connections within {self._command.seconds:g} s"
                self.close()
                raise SourceDown(
                    f"command {' '.join(self._command.words)!r} {why}: {self._last or 'it wrote nothing'}. "
                    "It must serve HTTP at 127.0.0.1:{port}."
                )
            time.sleep(0.02)

    def _started(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        seat, fill = self.folder / "seat", self._placeholders.fill
        try:
            words = [fill(word.replace("{port}", str(self.port)), "command") for word in self._command.words]
            own = {name: fill(text.replace("{port}", str(self.port)), f"env.{name}") for name, text in self._command.env.items()}
        except NotSet as error:
            raise SourceDown(str(error)) from None
        passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(bound_process.__file__), str(os.getpid()), *_python(words)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**passed, "CAIRN_SEAT": str(seat), **own},
        )

    def holds(self, state: Calls | None) -> bool:
        """Whether it is in this state."""
        return self._held == state

    def note(self, state: Calls | None) -> None:
        """It is in this state now; None while that is not known."""
        self._held = state

    def restart(self) -> None:
        """Another process in its place. Raises SourceFailed."""
        self.close()
        self._begin()

    @property
    def ended(self) -> bool:
        """Whether the service has ended by itself, or is about to: its connection was closed a moment ago."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(ENDING)
        return self._process.poll() is not None

    @property
    def _last(self) -> str:
        return " ".join(self._text.split())[-LAST:]

    def close(self) -> None:
        """End it: asked first, killed after CLOSE seconds. Its folder is gone then."""
        self._process.terminate()
        try:
            self._process.wait(CLOSE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._text = ""
        with contextlib.suppress(OSError):
            self._text = str(self._placeholders.hide((self.folder / "log").read_text(errors="replace")))
        shutil.rmtree(self.folder, ignore_errors=True)
        self._held = None


class Processes:
    """The services of one command. A process that was forked off starts services of its own."""

    def __init__(self, command: Command) -> None:
        self._command, self.where = command, f"services started by {' '.join(command.words)!r}"
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._all: list[Process] = []
        self._starting = 0
        self._change = threading.Condition()
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="services")

    @contextlib.contextmanager
    def use(self, state: Calls | None) -> Iterator[Process]:
        """A service for one use, at best one in the wanted state. One that fails meanwhile is ended; of one that has died another one
        shows whether it starts at all. Raises SourceDown when it does not. state: None before anything is played."""
        one = self._taken(state)
        failed = True
        try:
            yield one
            failed = False
        except Refused:
            failed = False
            raise
        except SourceFailed:
            if state is not None and one.ended:
                one.restart()
                failed = False
            raise
        finally:
            with self._change:
                one.free = True
                if failed:
                    self._all.remove(one)
                self._change.notify()
            if failed:
                one.close()

    def _taken(self, state: Calls | None) -> Process:
        """A free service: one in the wanted state, else a new one, else the one that was used least lately."""
        with self._change:
            while True:
                free = [one for one in self._all if one.free]
                best = next((one for one in free if one.holds(state)), None)
                more = len(self._all) + self._starting < self._command.most
                if best := best or (None if more else next(iter(free), None)):
                    best.free = False
                    self._all.remove(best)
                    self._all.append(best)
                    return best
                if more:
                    self._starting += 1
                    break
                self._change.wait()
        try:
            new = Process(self._command, self._starter)
            with self._change:
                self._all.append(new)
            return new
        finally:
            with self._change:
                self._starting -= 1
                self._change.notify()


def _python(words: list[str]) -> list[str]:
    return [sys.executable, *words[1:]] if words[0] == "python" else words


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return not probe.connect_ex(("127.0.0.1", port))


@atexit.register
def _close_all() -> None:
    for one in list(_open):
        with contextlib.suppress(OSError):
            one.close()


os.register_at_fork(after_in_child=_open.clear)  # they are the parent's
