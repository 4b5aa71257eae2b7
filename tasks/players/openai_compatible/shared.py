"""What all clients of a process share: one event loop in one background thread, connections, caches, rate limiters and budgets.

A fork starts with none of it: threads, connections and SQLite files do not survive a fork. What the parent had is kept out of reach
of the child's garbage collector, since closing a database there would unlock it under the parent.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tasks.players.openai_compatible import figures
from tasks.players.openai_compatible.budget import Budget, TokenEstimate
from tasks.players.openai_compatible.cache import Cache
from tasks.players.openai_compatible.connections import Connections
from tasks.players.openai_compatible.rate_limit import Pace, Pause, RateLimiter

Answer = TypeVar("Answer")


@dataclass
class SharedState:
    """Everything for one state folder. Its contents are touched by the loop's thread alone.

    asking: calls under way by their cache key, so that equal requests are asked once.
    """

    cache: Cache
    connections: Connections = field(default_factory=Connections)
    asking: dict[bytes, asyncio.Task[dict[str, Any]]] = field(default_factory=dict)
    _pauses: dict[str, Pause] = field(default_factory=dict)
    _limiters: dict[tuple[str, str], RateLimiter] = field(default_factory=dict)
    _estimates: dict[tuple[str, str], TokenEstimate] = field(default_factory=dict)
    _budgets: dict[str, Budget] = field(default_factory=dict)

    def limiter(self, url: str, model: str, pace: Pace) -> RateLimiter:
        """The limiter of a model at an endpoint; the first role's pace counts, and the smallest of their numbers in flight."""
        found = self._limiters.get((url, model))
        if found is None:
            found = self._limiters[url, model] = RateLimiter(pace, self._pauses.setdefault(url, Pause()))
        found.most = min(found.most, pace.max_in_flight)
        found.limit = min(found.limit, found.most)
        return found

    def token_estimate(self, url: str, model: str) -> TokenEstimate:
        """How many tokens the model counts."""
        return self._estimates.setdefault((url, model), TokenEstimate())

    def budget(self, ledger: str, limits: Mapping[str, float]) -> Budget:
        """A run's budget, shared by its roles and stages. The limits are those that were named last."""
        found = self._budgets.setdefault(ledger, Budget(ledger, self.cache))
        found.max_cost, found.max_tokens = limits.get("max_cost", 0.0), int(limits.get("max_tokens", 0))
        return found


_loop: asyncio.AbstractEventLoop | None = None
_states: dict[Path | None, SharedState] = {}
_lock = threading.Lock()
_of_the_parent: list[Any] = []


def _after_fork() -> None:
    global _loop, _lock
    _of_the_parent.append((_loop, dict(_states)))
    _loop, _lock = None, threading.Lock()
    _states.clear()
    figures.forget()


os.register_at_fork(after_in_child=_after_fork)


def _running() -> asyncio.AbstractEventLoop:
    """The background loop of this process, started when it is first needed."""
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="model calls", daemon=True).start()
        return _loop


def run(work: Coroutine[Any, Any, Answer]) -> Answer:
    """Carry a coroutine out in the background loop and wait for it. From any thread but the loop's own."""
    future = asyncio.run_coroutine_threadsafe(work, _running())
    try:
        return future.result()
    except BaseException:
        future.cancel()  # Ctrl-C: nobody waits for the batch; a call under way goes on until the process ends, and is kept if it can
        raise


def shared_state(folder: Path | None) -> SharedState:
    """What clients share for a state folder (None: nothing outlives the process). Call it in the loop's thread."""
    if folder not in _states:
        _states[folder] = SharedState(Cache(folder))
    return _states[folder]
