"""The servers of one file in one process: at most so many at once, each for one use at a time, and what state each of them holds."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from tasks.worlds.adapters.connection import Connection
from tasks.worlds.adapters.foreign_state import SourceFailed
from tasks.worlds.adapters.server_file import ServerFile
from tasks.worlds.api.tools import Refused


class Seat:
    """One server. holds: the token of the state in it, None when that is not known."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.holds: str | None = None
        self.free = True


class Seats:
    """Starts servers when they are needed. A process that was forked off starts servers of its own."""

    def __init__(self, path: Path, server: ServerFile) -> None:
        self._path, self._server = path, server
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._seats: list[Seat] = []
        self._change = threading.Condition()

    @contextlib.contextmanager
    def use(self, state: str) -> Iterator[Seat]:
        """A server for one use, at best one that holds the wanted state. One that fails meanwhile is given up."""
        seat = self._taken(state)
        failed = True
        try:
            with self._alone():
                if self._server.url:
                    seat.holds = None  # another process, or a restart, may have changed it
                yield seat
            failed = False
        except Refused:
            failed = False
            raise
        except SourceFailed as failure:
            for note in getattr(failure, "__notes__", ()):
                _tell(str(failure), note)
            raise
        finally:
            with self._change:
                seat.free = True
                if failed:
                    seat.connection.close(wait=False)
                    self._seats.remove(seat)
                self._change.notify()

    def _taken(self, state: str) -> Seat:
        """A free server: one that holds the wanted state, or none that is known, or a new one, or the one used least lately."""
        with self._change:
            while True:
                free = [seat for seat in self._seats if seat.free]
                best = next((seat for held in (state, None) for seat in free if seat.holds == held), None)
                if best is None and len(self._seats) < self._server.servers:
                    best = Seat(Connection(self._server, self._path))
                    best.connection.open()
                    self._seats.append(best)
                if best := best or next(iter(free), None):
                    best.free = False
                    self._seats.remove(best)
                    self._seats.append(best)
                    return best
                self._change.wait()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """The processes of this machine that play on one url take turns."""
        if not self._server.url:
            yield
            return
        name = hashlib.blake2b(self._server.url.encode(), digest_size=8).hexdigest()
        with (Path(tempfile.gettempdir()) / f"cairn-mcp-{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@functools.lru_cache(maxsize=256)
def _tell(failure: str, note: str) -> None:
    """Log what a server wrote, once: a thousand conversations may meet the same failure."""
    logging.getLogger(__name__).warning("%s %s", failure, note)
