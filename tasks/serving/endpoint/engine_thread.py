"""The engine of a served checkpoint, in a thread of its own: requests come in from any thread, each gets a future."""

from __future__ import annotations

import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tasks.players.local.generation import Generated, Sampling
from tasks.players.local.own import weights
from tasks.players.local.own.engine import OwnEngine

Watch = Callable[[Sequence[int]], bool]
"""Is given the ids of a turn so far, after each token, in the engine's thread; True: the turn is wanted no further."""


@dataclass
class _Turn:
    name: str
    ids: Sequence[int]
    sampling: Sampling
    watch: Watch | None
    answer: Future[Generated] = field(default_factory=Future)


class EngineThread:
    """Requests join while others are being served; those for which no row is free wait."""

    def __init__(self, engine: OwnEngine) -> None:
        self._engine = engine
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._waiting: deque[_Turn] = deque()
        self._running: dict[str, _Turn] = {}
        self._names = map(str, itertools.count())
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        self._thread.start()

    def ask(self, ids: Sequence[int], sampling: Sampling, watch: Watch | None = None) -> Future[Generated]:
        """A turn after `ids`; one that its watch has ended finishes with `stop`. LookupError, in the future, for an adapter that is not
        loaded."""
        turn = _Turn(next(self._names), ids, sampling, watch)
        self._inbox.put(lambda: self._waiting.append(turn))
        return turn.answer

    @property
    def vocabulary(self) -> int:
        """Token ids are below it."""
        return int(self._engine.stack.weights["model.embed_tokens.weight"].shape[0])

    @property
    def most(self) -> int:
        """Tokens of the longest conversation."""
        return self._engine.most

    def load(self, name: str, folder: Path) -> Future[None]:
        """Serve an adapter too, by a name that was never used before. BadInput or OSError, in the future, for none of this base."""
        return self.call(lambda engine: engine.add_adapter(name, weights.adapter_of_folder(folder, engine.stack)))

    def unload(self, name: str) -> Future[None]:
        """Serve it no longer. RuntimeError, in the future, while it is in use."""
        return self.call(lambda engine: engine.remove_adapter(name))

    def call(self, work: Callable[[OwnEngine], Any]) -> Future[Any]:
        """Something that is done with the engine between two steps."""
        answer: Future[Any] = Future()
        self._inbox.put(lambda: _settle(answer, lambda: work(self._engine)))
        return answer

    def end(self) -> None:
        """Stop; what is under way is not answered."""
        self._inbox.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                if not self._go_on():
                    return
            except Exception as error:  # whoever was waiting is told, and the next ones are served
                lost = [*self._running.values(), *self._waiting]
                self._running.clear()
                self._waiting.clear()
                for turn in lost:
                    with suppress(LookupError):
                        self._engine.close(turn.name)
                    if not turn.answer.done():
                        turn.answer.set_exception(error)

    def _go_on(self) -> bool:
        """Take in what has come, and a step; whether there is to be another one."""
        idle = not self._running and not self._waiting
        while idle or not self._inbox.empty():
            if (item := self._inbox.get()) is None:
                return False
            item()
            idle = False
        while self._waiting and len(self._running) < self._engine.rows:
            self._begin(self._waiting.popleft())
        for made in self._engine.step() if self._running else ():
            self._close(made.conversation).answer.set_result(made)
        for turn in [*self._running.values()]:
            self._look(turn)
        return True

    def _close(self, name: str) -> _Turn:
        self._engine.close(name)
        return self._running.pop(name)

    def _begin(self, turn: _Turn) -> None:
        if not turn.answer.set_running_or_notify_cancel():
            return  # nobody waits for it any more
        try:
            self._engine.submit(turn.name, turn.ids, turn.sampling)
            self._running[turn.name] = turn
        except Exception as error:
            with suppress(LookupError):
                self._engine.close(turn.name)
            turn.answer.set_exception(error)

    def _look(self, turn: _Turn) -> None:
        if turn.watch is None:
            return
        made = self._engine.so_far(turn.name)
        try:
            over = turn.watch(made.ids)
        except Exception as error:  # its asker's matter
            self._close(turn.name).answer.set_exception(error)
            return
        if over:
            self._close(turn.name).answer.set_result(replace(made, finish="stop"))


def _settle(answer: Future[Any], work: Callable[[], Any]) -> None:
    if not answer.set_running_or_notify_cancel():
        return
    try:
        answer.set_result(work())
    except Exception as error:  # the asker's matter, not the engine's
        answer.set_exception(error)
