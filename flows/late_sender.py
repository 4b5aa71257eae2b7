"""A thread that sends what a run has to tell a server, so that one that answers slowly or not at all holds nothing up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Item = TypeVar("Item")
PATIENCE = 5.0
"""Seconds that a request may take, and that the end of a run waits for the last ones; ours."""


class LateSender(Generic[Key, Item]):
    """It sends all that waits in one go, in the order in which it came, of each key the latest item alone."""

    def __init__(self, name: str, send: Callable[[dict[Key, Item]], None]) -> None:
        """name: of the thread. send: is called in it, and raises nothing."""
        self._name, self._send = name, send
        self._waiting: dict[Key, Item] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.over = False
        """Whether nothing more is taken."""

    @property
    def begun(self) -> bool:
        """Whether anything was ever put."""
        return self._thread is not None

    def put(self, key: Key, item: Item) -> None:
        """Have an item sent; nothing when it is over."""
        with self._changed:
            if self.over:
                return
            self._waiting[key] = item
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Take nothing more, and wait a little for what is still to be sent."""
        with self._changed:
            self.over = True
            self._changed.notify()
        if self._thread:
            self._thread.join(PATIENCE)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self.over or self._waiting)
                waiting, self._waiting = self._waiting, {}
            if not waiting:
                return
            self._send(waiting)
