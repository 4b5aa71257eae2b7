"""The servers of one file in one process: at most so many at once, each for one use at a time, and what state each of them holds.

One more is started when waiting for a free one, and taking servers from conversations that will come back to them, has cost as much
time as starting one does: so fast tools share a few servers, and slow ones get as many as there are conversations.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tasks.worlds.adapters.connection import Connection, Put
from tasks.worlds.adapters.foreign_state import SourceFailed, down
from tasks.worlds.adapters.machine_lock import locked
from tasks.worlds.adapters.server_file import MOST_SERVERS, ServerFile
from tasks.worlds.api.tools import Refused

STARTING = max(2, os.cpu_count() or 1)
"""Servers that are started at the same time; ours: starting is work for a processor, and one that has to share it is given up."""


class Token:
    """What a server is brought to a state with: text, bytes or calls. Tokens are equal when their contents are; a state that nobody
    keeps a token of is wanted by no conversation any more."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Token) and self.content == other.content)

    def __hash__(self) -> int:
        return hash(self.content)


class Seat:
    """One server. fresh: nothing was called in it since it was started."""

    def __init__(self, start: Callable[[Put | None], Connection]) -> None:
        self._start = start
        self._held: Callable[[], Token | None] = lambda: None
        self.free, self.fresh = False, True
        self.connection = start(None)

    @property
    def holds(self) -> Token | None:
        """The token of the state in it; None when that is not known, or nobody wants it any more."""
        return self._held()

    @holds.setter
    def holds(self, token: Token | None) -> None:
        self._held = weakref.ref(token) if token is not None else lambda: None

    def restart(self, put: Put | None = None) -> None:
        """Another server in its place. put: fills its folder before it starts. Raises SourceFailed."""
        self.connection.close(wait=False)
        self.holds = None
        self.connection = self._start(put)
        self.fresh = True


class Seats:
    """Starts servers when they are needed. A process that was forked off starts servers of its own.

    accept: raises SourceFailed for a server that is another one than before. restarts: whether a server is started anew to be brought
    to a state. alone: the processes of this machine take turns, since they play on one server that is set back.
    """

    def __init__(
        self, path: Path, server: ServerFile, accept: Callable[[Connection], None], restarts: Callable[[], bool], alone: bool
    ) -> None:
        self._path, self._server, self._accept = path, server, accept
        self._restarts, self._apart = restarts, alone
        self._most = 1 if alone else server.servers or MOST_SERVERS
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._seats: list[Seat] = []
        self._change = threading.Condition()
        self._starting = 0
        self._lost, self._start_seconds = 0.0, 0.0

    @contextlib.contextmanager
    def use(self, state: Token | None) -> Iterator[Seat]:
        """A server for one use, at best one that holds the wanted state. One that fails meanwhile is given up, and another one shows
        whether there is still one to be had: raises SourceDown when there is none. state: None before anything is played."""
        seat = self._taken(state)
        failed = True
        try:
            with self._alone():
                if self._apart:
                    seat.holds = None  # another process, or a restart, may have changed it
                if seat.connection.relisted:
                    self._accept(seat.connection)
                yield seat
            failed = False
        except Refused:
            failed = False
            raise
        except SourceFailed as failure:
            for note in getattr(failure, "__notes__", ()):
                _tell(str(failure), note)
            if state is not None and seat.connection.closed:
                seat.restart()
                failed = False
            raise
        finally:
            with self._change:
                seat.free = True
                if failed:
                    seat.connection.close(wait=False)
                    self._seats.remove(seat)
                self._change.notify()

    def spent(self, seconds: float) -> None:
        """Time that it took to bring a server to a state which another one would have held."""
        with self._change:
            self._lost += seconds

    def _taken(self, state: Token | None) -> Seat:
        """A free server: one that holds the wanted state, or one that nobody wants, or a new one, or the one used least lately."""
        with self._change:
            while True:
                best, kept = self._best(state)
                more = self._may_start(state)
                if best is not None and not (kept and more):
                    best.free = False
                    self._seats.remove(best)
                    self._seats.append(best)
                    return best
                if more:
                    self._starting += 1
                    self._lost = 0.0
                    break
                since = time.monotonic()
                self._change.wait(max(0.05, self._start_seconds))
                self._lost += time.monotonic() - since
        return self._begun()

    def _best(self, state: Token | None) -> tuple[Seat | None, bool]:
        """A free server, and whether another conversation is kept waiting for its own when it is taken."""
        free = [seat for seat in self._seats if seat.free]
        for held in (state, None):
            for seat in free:
                if seat.holds == held:
                    return seat, False
        return next(iter(free), None), True

    def _may_start(self, state: Token | None) -> bool:
        """Whether another server is started rather than one waited for, or taken from a conversation that will come back to it."""
        count = len(self._seats) + self._starting
        if not count:
            return True
        if count >= self._most or self._starting >= STARTING or not self._start_seconds:
            return False
        held = any(seat.holds == state for seat in self._seats)
        return self._lost >= self._start_seconds or (self._restarts() and not held)

    def _begun(self) -> Seat:
        """A new server, in use."""
        since = time.monotonic()
        try:
            seat = Seat(self._started)
        except BaseException:
            with self._change:
                self._starting -= 1
                self._change.notify()
            raise
        with self._change:
            self._starting -= 1
            self._start_seconds = time.monotonic() - since
            self._seats.append(seat)
            self._change.notify_all()
        return seat

    def _started(self, put: Put | None) -> Connection:
        connection = Connection(self._server, self._path, put)
        try:
            connection.open()
            self._accept(connection)
        except BaseException as error:
            connection.close(wait=False)
            if isinstance(error, SourceFailed):
                raise down(error) from None
            raise
        return connection

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """The processes of this machine that set one url back take turns."""
        if not self._apart:
            yield
            return
        with locked(self._server.url):
            yield


@functools.lru_cache(maxsize=256)
def _tell(failure: str, note: str) -> None:
    """Log what a server wrote, once: a thousand conversations may meet the same failure."""
    logging.getLogger(__name__).warning("%s %s", failure, note)
