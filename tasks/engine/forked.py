"""Shards of a process side by side on a CPU's cores: each in a fork, its answer a file.

A fork shares what was loaded and needs no pickling of the work. It is safe while the forking process itself has computed nothing
with torch (a pool of kernel threads does not survive a fork), which is why the parent never works off a shard itself.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contract.client import BudgetSpent
from tasks.contract.params import BadInput, StageFailed
from tasks.engine import usage
from tasks.engine.process import ProcessFailed, die_with_parent, end_of

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

MOST = 4
"""Forks at once: each may hold a model of its own."""


def at_once(threads: int, device: str) -> int:
    """How many shards may compute side by side: the cores this process may use by the threads of each; on a GPU one."""
    return 1 if device != "cpu" else max(1, min(MOST, len(os.sched_getaffinity(0)) // threads))


_AS_RAISED = {kind.__name__: kind for kind in (BadInput, BudgetSpent, StageFailed)}
"""Errors whose words are for people as they are."""


@dataclass(frozen=True)
class _Fork:
    process: BaseProcess
    answer: Path

    def result(self) -> Any:
        """Wait for the answer. Raises BadInput, BudgetSpent, StageFailed or ProcessFailed with the words of what the fork raised."""
        self.process.join()
        if not self.answer.exists():
            raise ProcessFailed(f"a shard's process {end_of(self.process.exitcode)} and left no answer")
        kind, said, used = json.loads(self.answer.read_text())
        self.answer.unlink()
        usage.FORKS.append(used)
        if kind == "done":
            return said
        raise _AS_RAISED[kind](said) if kind in _AS_RAISED else ProcessFailed(f"{kind}: {said}")


class Forks:
    """`submit` for `tasks.engine.shards.sharded`: starts a fork per shard, and waits while `limit` of them compute."""

    def __init__(self, folder: Path, limit: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._limit, self._count = folder, limit, 0
        self._running: list[BaseProcess] = []

    def __call__(self, work: Callable[[Sequence[Any]], Any], items: Sequence[Any]) -> _Fork:
        """Start the shard once there is room for it."""
        while len(self._running) >= self._limit:
            wait([process.sentinel for process in self._running])
            self._running = [process for process in self._running if process.is_alive()]
        answer = self._folder / f"{self._count}.json"
        answer.unlink(missing_ok=True)
        self._count += 1
        process = multiprocessing.get_context("fork").Process(target=_work_off, args=(work, items, answer, os.getpid()), daemon=True)
        process.start()
        self._running.append(process)
        return _Fork(process, answer)


def _work_off(work: Callable[[Sequence[Any]], Any], items: Sequence[Any], answer: Path, parent: int) -> None:
    die_with_parent(parent)
    usage.begin()
    start = time.monotonic()
    try:
        said = ["done", work(items)]
    except Exception as error:
        said = [type(error).__name__, str(error)]
    temporary = answer.with_suffix(".new")
    temporary.write_text(json.dumps([*said, usage.used(time.monotonic() - start)]))
    temporary.replace(answer)
