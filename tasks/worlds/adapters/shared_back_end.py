"""Objects that share what stands behind them (a service, a database file, a module's globals): their calls take turns.

Declared by `conversations="one_at_a_time"`: all processes of this machine take turns by a lock, which dies with its process, and the
back end is brought to the state of the conversation that calls whenever another one had it. Conversations are played one after the
other, so that this is rare. Declared by `conversations="own_process"`, each process holds one such object
(`tasks.worlds.adapters.object_processes`)."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import IO, Any

from tasks.worlds.adapters import machine_lock
from tasks.worlds.adapters.foreign_state import Saved, SourceFailed
from tasks.worlds.adapters.kept_objects import ByHand, Held

WAIT = 600.0
"""Seconds that a call waits for its turn; ours: a call of another process that takes longer hangs."""


class Turns:
    """The turns of all processes of this machine at one back end. name: what they agree on. where: how messages call it."""

    def __init__(self, name: str, where: str) -> None:
        self._name, self._where = f"turns {name}", where
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._me, self._mutex, self._depth = uuid.uuid4().hex, threading.RLock(), 0
        self.disturbed = True  # whether the back end may hold something else than what this process's last call has left

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """A turn of this thread; within one it has another. Raises SourceFailed when it does not come."""
        with self._mutex:
            if self._depth:
                yield
                return
            with self.held(WAIT) as file:
                file.seek(0)
                self.disturbed |= file.read().partition(" ")[0] != self._me
                file.seek(0)
                file.truncate()
                file.write(f"{self._me} {os.getpid()}")
                file.flush()
                self._depth = 1
                try:
                    yield
                finally:
                    self._depth = 0

    def held(self, seconds: float) -> IO[str]:
        """The open file that is the turn, until it is closed; nobody else has one meanwhile, in this process neither. Raises
        SourceFailed after so many seconds."""

        def shared(note: str) -> str:
            return f"{self._where}: its objects share a back end, which process {note.partition(' ')[2] or 'unknown'} plays in"

        def waiting(note: str) -> None:
            logging.getLogger(__name__).warning("%s; waiting for it", shared(note))

        try:
            return machine_lock.held(self._name, seconds, waiting)
        except machine_lock.StillHeld as still:
            raise SourceFailed(f"{shared(still.note)}; waited {seconds:.0f} s for it. Let that process end, or end it.") from None


class OneObject:
    """The objects over one back end: a single one at a time, which is brought to the state that a call needs. turns: None where this
    process alone reaches the back end."""

    def __init__(self, by_hand: ByHand, made: Callable[[], Any], turns: Turns | None) -> None:
        self.first, self.content, self.saved, self.copied = by_hand.first, by_hand.content, by_hand.saved, by_hand.copied
        self._by_hand, self._made, self._turns = by_hand, made, turns
        self._root: Any = None
        self._holds: str | None = None
        self._mutex = threading.RLock()

    def turn(self) -> contextlib.AbstractContextManager[Any]:
        """The back end, for this thread alone."""
        return self._turns.taken() if self._turns else self._mutex

    @contextlib.contextmanager
    def at(self, saved: Saved, restored: bool) -> Iterator[Held]:
        """The one object, in its turn."""
        with self.turn():
            if self._holds != saved.token or (self._turns is not None and self._turns.disturbed):
                self._root = self._made()
                if restored:
                    self._by_hand.bring(self._root, saved)
                if self._turns is not None:
                    self._turns.disturbed = False
            self._holds = None  # until it is known what the call has left
            yield _Turn(self, self._root, saved)

    def after(self, root: Any, saved: Saved) -> Saved:
        """The state in which a call has left it. Raises BadInput for one that cannot be kept."""
        token = self._by_hand.dumped(root)
        self._holds = token
        return saved if token == saved.token else self.saved(token)


class _Turn:
    def __init__(self, keeper: OneObject, root: Any, saved: Saved) -> None:
        self._keeper, self.root, self._saved = keeper, root, saved

    def after(self) -> Saved:
        return self._keeper.after(self.root, self._saved)


def start_of(token: str) -> dict[str, dict[str, dict[str, Any]]]:
    """The start, frozen with the world: what the back end holds when a later process begins may be anything."""
    return {"start": {"dump": {"json": token}}}
