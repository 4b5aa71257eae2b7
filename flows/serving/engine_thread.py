"""The engine of a served checkpoint, in a thread of its own: requests come in from any thread, each gets a future."""

from __future__ import annotations

import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from tasks.contract.generation import Generated, Sampling
from tasks.players.local.own.engine import OwnEngine


class EngineThread:
    """Requests join while others are being served; those for which no row is free wait."""

    def __init__(self, engine: OwnEngine) -> None:
        self._engine = engine
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._waiting: deque[tuple[str, Sequence[int], Sampling]] = deque()
        self._answers: dict[str, Future[Generated]] = {}
        self._running: set[str] = set()
        self._names = map(str, itertools.count())
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        self._thread.start()

    def ask(self, ids: Sequence[int], sampling: Sampling) -> Future[Generated]:
        """A turn after `ids`. LookupError, in the future, for an adapter that is not loaded."""
        answer: Future[Generated] = Future()

        def take() -> None:
            name = next(self._names)
            self._answers[name] = answer
            self._waiting.append((name, ids, sampling))

        self._inbox.put(take)
        return answer

    @property
    def vocabulary(self) -> int:
        """Token ids are below it."""
        return int(self._engine.stack.weights["model.embed_tokens.weight"].shape[0])

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
            idle = not self._running and not self._waiting
            while idle or not self._inbox.empty():
                if (item := self._inbox.get()) is None:
                    return
                item()
                idle = False
            while self._waiting and len(self._running) < self._engine.rows:
                self._begin(*self._waiting.popleft())
            try:
                finished = self._engine.poll() if self._running else ()
            except Exception as error:  # whoever was waiting is told, and the next ones are served
                self._give_up(error)
                continue
            for made in finished:
                self._running.discard(made.conversation)
                self._engine.close(made.conversation)
                self._answers.pop(made.conversation).set_result(made)

    def _give_up(self, error: Exception) -> None:
        """Answer every turn that is under way with an error."""
        for name in [*self._running]:
            self._running.discard(name)
            self._engine.close(name)
            self._answers.pop(name).set_exception(error)

    def _begin(self, name: str, ids: Sequence[int], sampling: Sampling) -> None:
        try:
            self._engine.submit(name, ids, sampling)
            self._running.add(name)
        except LookupError as error:
            self._answers.pop(name).set_exception(error)


def _settle(answer: Future[Any], work: Callable[[], Any]) -> None:
    try:
        answer.set_result(work())
    except Exception as error:  # the asker's matter, not the engine's
        answer.set_exception(error)
