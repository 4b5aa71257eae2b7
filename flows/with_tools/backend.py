"""What tools are called on: the tables of a world in this process, an object, or an MCP server. It is never set back.

One thread makes all calls of a backend, one after the other, each with the check before it: so nothing is written between the check
of a write and the write, as far as it is written from here.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLate
from typing import Any, Protocol, TypeVar

from tasks.contract.problem import Kind, ToolResult
from tasks.worlds.adapters.foreign_state import ForeignState, Real, Saved
from tasks.worlds.adapters.state_content import Content
from tasks.worlds.api import calls
from tasks.worlds.api.play import TOOL_FAILURE
from tasks.worlds.api.runtime import World
from tasks.worlds.api.state import Base
from tasks.worlds.api.tools import Tool

Made = TypeVar("Made")


class BackendLost(RuntimeError):
    """What tools are called on can be called no more. The message says why."""


class Late(RuntimeError):
    """A call was not answered in time. begun: it may still take effect."""

    def __init__(self, message: str, begun: bool) -> None:
        super().__init__(message)
        self.begun = begun


class Waited:
    """Whether whoever asked for a call still waits when it is about to be made."""

    def __init__(self) -> None:
        self._lock, self._begun, self._over = threading.Lock(), False, False

    def begin(self) -> None:
        """It is made now. Late when nobody waits any more, so that it must not be."""
        with self._lock:
            if self._over:
                raise Late("nobody waits for it any more", begun=False)
            self._begun = True

    def give_up(self) -> bool:
        """Wait no longer; whether it was begun."""
        with self._lock:
            self._over = True
            return self._begun


class Backend(Protocol):
    """where: what it is, for people."""

    where: str

    def call(self, tool: Tool, arguments: Any) -> ToolResult:
        """Run a tool. Raises BackendLost."""

    def state(self) -> Any:
        """What it holds now, for `seen` and `copy`. Raises whatever keeps it from being read."""

    def seen(self, state: Any) -> Any:
        """A state as a world's predicates look at it."""

    def copy(self, state: Any) -> World | None:
        """A world of its own in this state, where calls can be tried; None where nothing must be tried."""

    def packed(self, state: Any) -> Any:
        """The same, small, for as long as its conversation is held; `seen` and `copy` take it too."""

    def close(self) -> None:
        """End what was started for it."""


class Tables:
    """A world of tables: this process holds them."""

    def __init__(self, world: World) -> None:
        self._live = world.fork()
        self.where = "the tables of this process, which begin as the world was frozen and are gone when it ends"

    def call(self, tool: Tool, arguments: Any) -> ToolResult:
        """Run a tool."""
        return _answer(tool, self._live.call(tool.name, arguments))

    def state(self) -> Any:
        """A snapshot of all tables; it costs the rows that changed."""
        return self._live.snapshot()

    def seen(self, state: Any) -> Any:
        """Tables in this state."""
        return self.copy(state).state

    def copy(self, state: Any) -> World:
        """A fork of the tables in this state."""
        fork = self._live.fork()
        fork.restore(state)
        return fork

    def packed(self, state: Any) -> Any:
        """It is small."""
        return state

    def close(self) -> None:
        """Nothing was started."""


class Foreign:
    """What is behind an adapted world."""

    def __init__(self, world: World) -> None:
        self._real: Real = world.foreign.source.real()
        self._base, self._longest = world.shared.base, world.shared.longest_answer
        self.where = self._real.where

    def call(self, tool: Tool, arguments: Any) -> ToolResult:
        """Run a tool."""
        made = calls.run(tool, functools.partial(self._call, tool.name), _Untouched(), arguments, self._longest)  # type: ignore[arg-type]
        if self._real.lost:
            raise BackendLost(self._real.lost)
        return _answer(tool, made)

    def _call(self, tool: str, /, **arguments: Any) -> Any:
        return self._real.call(tool, arguments)

    def state(self) -> Any:
        """What it holds."""
        try:
            return self._real.state()
        finally:
            if self._real.lost:
                raise BackendLost(self._real.lost)

    def seen(self, state: Saved | bytes | Exception) -> Any:
        """A `ForeignState` in which nothing can be called. Raises what kept it from being read."""
        if isinstance(state, Exception):
            raise state
        state = Saved(None, Content(zlib.decompress(state).decode())) if isinstance(state, bytes) else state
        return ForeignState(_Still(state), self._base)  # type: ignore[arg-type]

    def copy(self, state: Any) -> None:
        """None: a copy of an object or a server might reach what the real one reaches."""

    def packed(self, state: Saved | Exception) -> bytes | Exception:
        """Its text, compressed: a thousand conversations hold one for each of their writes."""
        return state if isinstance(state, Exception) else zlib.compress(state.text.encode(), 1)

    def close(self) -> None:
        """End a server of its own."""
        self._real.close()


def of(world: World) -> Backend:
    """What is behind a world, opened. BadInput when that cannot be."""
    return Tables(world) if world.foreign is None else Foreign(world)


class _Untouched:
    """In place of a state that is taken back when a call fails: what is real is not."""

    def begin(self, kind: Kind) -> None: ...

    def finish(self, keep: bool) -> None: ...


class _Still:
    """A `Source` of one state, in which nothing can be called."""

    def __init__(self, saved: Saved) -> None:
        self._saved = saved

    def start(self, base: Base) -> Saved:
        return self._saved

    def protected(self, name: str) -> str:
        return ""

    def call(self, *_: Any) -> Any:
        raise LookupError("a predicate looks at the state and at what was said; it calls no tool of what is real")


def _answer(tool: Tool, made: ToolResult) -> ToolResult:
    """The answer; a failure of a tool's own code is told to the agent, and does not end the conversation as it does in training."""
    if made.ok or not made.content.startswith(TOOL_FAILURE):
        return made
    return calls.error(f"{tool.name} failed: {made.content[len(TOOL_FAILURE) :].removesuffix(chr(34) + '}')}")


class Calls:
    """The calls of one backend, in a thread of their own, in which it is opened too.

    seconds: for which a call is waited for, with those before it.
    """

    def __init__(self, opened: Callable[[], Backend], seconds: float) -> None:
        self._seconds = seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="backend")
        self._running = ""
        self.backend = self._thread.submit(opened).result()

    def run(self, what: str, work: Callable[[Backend, Callable[[], None]], Made]) -> Made:
        """Do something with the backend. work: is given what it calls right before it makes the call; what was waited for in vain until
        then is not made. Raises what it raises, and Late."""
        waited = Waited()

        def named() -> Made:
            self._running = what
            try:
                return work(self.backend, waited.begin)
            finally:
                self._running = ""

        began = time.monotonic()
        asked = self._thread.submit(named)
        try:
            return asked.result(self._seconds)
        except TooLate:
            if asked.done():  # the work's own
                raise
            begun = waited.give_up()
            if asked.cancel():
                raise Late(f"{what} was not called: {self._running or 'another call'} has not ended", begun=False) from None
            if not begun:
                raise Late(f"{what} was not called: its check did not end within {self._seconds:g} s", begun=False) from None
            asked.add_done_callback(lambda done: _late(what, done, time.monotonic() - began))
            raise Late(f"{what} did not answer within {self._seconds:g} s; whether it takes effect is not known", True) from None

    def close(self) -> None:
        """End the backend; what runs is not waited for."""
        self.backend.close()
        self._thread.shutdown(wait=False, cancel_futures=True)


def _late(what: str, done: Future[Any], seconds: float) -> None:
    ended = f"it failed: {error}" if (error := done.exception()) else "it has answered now"
    logging.getLogger(__name__).warning("%s took %.1f s, and its conversation was told that it was late; %s", what, seconds, ended)
