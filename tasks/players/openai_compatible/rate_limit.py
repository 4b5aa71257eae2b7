"""How fast a model is asked: as many calls in flight as the server bears, no faster than it allows, and none while it is down.

The limit grows by one a success until the first 429 or 503, from then on by one per round of answers, and is cut by a third when the
server says it is too much. A run of failures opens the breaker: one call at a time probes whether the server is back.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

FIRST = 16
"""Calls in flight at the start: a run should not greet a small server with its largest number."""
CUT = 0.7
"""What is left of the limit when the server is too busy; once per round of answers."""
LONGEST_PAUSE = 900.0
"""Seconds. A server that asks for a longer pause is told of as a failure: waiting for hours without a word helps nobody."""

_jitter = random.Random()  # changes when something is asked, never what


@dataclass(frozen=True)
class Pace:
    """Bounds of the pacing; seconds where it is time.

    max_in_flight: calls at once. timeout: of one attempt, answer included. retries: attempts of a call before it is set aside.
    pause, longest: of the first and of any wait between attempts. failures: in a row, open the breaker. probes: failed ones after
    which the waiting calls fail.
    """

    max_in_flight: int = 32
    timeout: float = 180.0
    retries: int = 5
    pause: float = 0.5
    longest: float = 30.0
    failures: int = 10
    probes: int = 5

    def backoff(self, attempt: int) -> float:
        """Seconds before attempt 1, 2 ...: doubling, with jitter, so that calls that failed together do not come back together."""
        return min(self.longest, self.pause * 2.0 ** (attempt - 1)) * _jitter.uniform(0.5, 1.0)


class Down(Exception):
    """The server does not answer any more, or refuses everybody; the message says why."""


@dataclass
class Pause:
    """Until when (loop time) an endpoint wants no calls, whatever the model. Shared by the limiters of its models."""

    until: float = 0.0


@dataclass
class Slot:
    """A call under way: when it started, and whether it probes a server that was down."""

    started: float
    probe: bool


@dataclass
class RateLimiter:
    """Lets calls to one model of one endpoint through. Lives in the event loop's thread alone."""

    pace: Pace
    pause: Pause
    most: int = field(init=False)
    limit: float = field(init=False)
    in_flight: int = 0
    last_error: str = ""
    given_up: int = 0
    _climbing: bool = True
    _last_cut: float = -1.0
    _waiters: deque[asyncio.Future[Slot]] = field(default_factory=deque)
    _failures: int = 0
    _opened: int = 0
    _open_until: float = 0.0
    _probing: bool = False
    _timer: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        self.most = self.pace.max_in_flight
        self.limit = float(min(FIRST, self.most))

    @property
    def waiting(self) -> int:
        """Calls that wait to be let through."""
        return len(self._waiters)

    def paused(self) -> float:
        """Seconds for which nobody is let through (a Retry-After, an open breaker); 0 when it is not so."""
        return max(0.0, max(self.pause.until, self._open_until) - asyncio.get_running_loop().time())

    async def enter(self) -> Slot:
        """Wait for one's turn. Raises Down when the server is given up meanwhile."""
        loop = asyncio.get_running_loop()
        if not self._waiters and self._free():
            return self._slot(loop.time())
        turn: asyncio.Future[Slot] = loop.create_future()
        self._waiters.append(turn)
        self._wake()
        return await turn

    def leave(self, slot: Slot) -> None:
        """The call is over, however it went; say how first."""
        self.in_flight -= 1
        if slot.probe:
            self._probing = False
        self._wake()

    def well(self) -> None:
        """An answer came."""
        self._failures = self._opened = 0
        self._open_until = 0.0
        if self.in_flight >= int(self.limit):  # a limit that nobody reaches says nothing about the server
            self.limit = min(self.most, self.limit + (1.0 if self._climbing else 1.0 / self.limit))

    def busy(self, slot: Slot, wait: float) -> None:
        """The server said 429 or 503. wait: its Retry-After in seconds, 0 without one."""
        now = asyncio.get_running_loop().time()
        self._failures = self._opened = 0
        self._open_until = 0.0
        if slot.started > self._last_cut:  # calls of the same round tell of the same crowd
            self.limit, self._climbing, self._last_cut = max(1.0, self.limit * CUT), False, now
        self.pause.until = max(self.pause.until, now + wait)

    def ill(self, slot: Slot, why: str) -> None:
        """No answer: an error of the server's, a broken connection, a time-out. May give the server up."""
        self.last_error = why
        if slot.probe:
            self._opened += 1
        elif not self._opened:
            self._failures += 1
            self._opened = int(self._failures >= self.pace.failures)
        else:
            return  # started before the breaker opened
        if self._opened > self.pace.probes:
            self._opened = self.pace.probes  # whoever comes next may probe once
            self.give_up(f"no answer {self.pace.failures} times in a row, nor to {self.pace.probes} probes after that; last: {why}")
        elif self._opened:
            wait = min(self.pace.longest, 2 * self.pace.pause * 2.0 ** (self._opened - 1))
            self._open_until = asyncio.get_running_loop().time() + wait

    def give_up(self, why: str) -> None:
        """Fail everybody who waits; calls between two attempts see it by `given_up`."""
        self.last_error = why
        self.given_up += 1
        self._open_until = 0.0
        while self._waiters:
            turn = self._waiters.popleft()
            if not turn.done():
                turn.set_exception(Down(why))

    def _free(self) -> bool:
        if self.paused():
            return False
        return not self._probing if self._opened else self.in_flight < int(self.limit)

    def _slot(self, now: float) -> Slot:
        self.in_flight += 1
        probe = self._opened > 0
        self._probing = self._probing or probe
        return Slot(now, probe)

    def _wake(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiters and self._free():
            turn = self._waiters.popleft()
            if not turn.done():
                turn.set_result(self._slot(loop.time()))
        if self._waiters and (wait := self.paused()):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_later(wait, self._wake)


def retry_after(value: str | None, date: str | None) -> float:
    """Seconds that a Retry-After header asks for: a number, or an HTTP date counted from the server's own Date header, whose clock it
    is. 0 without a header that can be read."""
    if not value:
        return 0.0
    try:
        return min(max(0.0, float(value)), 1e9)
    except ValueError:
        pass
    try:
        now = parsedate_to_datetime(date) if date else datetime.now(UTC)
        return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    except (ValueError, TypeError):
        return 0.0
