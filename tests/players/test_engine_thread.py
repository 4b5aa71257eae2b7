"""The engine's thread: whatever fails is told to who waits for it, and whoever comes next is served."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from tasks.players.local.generation import Generated, Sampling
from tasks.serving.endpoint.engine_thread import EngineThread

PLAIN = Sampling(0, 0.0, 3, (), "", 1.0)


class Engine:
    """Says 1 three times; fails where it is told to."""

    rows, most = 4, 100

    def __init__(self) -> None:
        self.open: dict[str, list[int]] = {}
        self.fails = ""

    def _fail(self, where: str) -> None:
        if where == self.fails:
            self.fails = ""
            raise MemoryError(where)

    def submit(self, name: str, ids: Sequence[int], sampling: Sampling) -> None:
        self.open[name] = []
        self._fail("submit")

    def step(self) -> list[Generated]:
        self._fail("step")
        for made in self.open.values():
            made.append(1)
        return [self._so_far(name, "stop") for name, made in self.open.items() if len(made) == 3]

    def so_far(self, name: str) -> Generated:
        self._fail("so_far")
        return self._so_far(name, "length")

    def _so_far(self, name: str, finish: str) -> Generated:
        return Generated(name, tuple(self.open[name]), (), finish)

    def close(self, name: str) -> None:
        del self.open[name]
        self._fail("close")


@pytest.fixture
def served() -> Iterator[tuple[Any, EngineThread]]:
    engine: Any = Engine()
    thread = EngineThread(engine)
    yield engine, thread
    thread.end()


def fail(ids: Sequence[int]) -> bool:
    raise MemoryError("watch")


@pytest.mark.parametrize("where", ["submit", "step", "so_far", "close", "watch"])
def test_what_fails_is_told_and_the_next_one_is_served(served: tuple[Any, EngineThread], where: str) -> None:
    engine, thread = served
    engine.fails = where
    watch: Callable[[Sequence[int]], bool] = fail if where == "watch" else lambda ids: False
    with pytest.raises(MemoryError, match=where):
        thread.ask([1], PLAIN, watch).result(5)
    assert thread.ask([1], PLAIN, lambda ids: False).result(5).ids == (1, 1, 1) and not engine.open


def test_who_waits_no_longer_stops_nobody(served: tuple[Any, EngineThread]) -> None:
    _, thread = served
    for _ in range(20):
        thread.ask([1], PLAIN).cancel()
    assert thread.ask([1], PLAIN).result(5).finish == "stop"
