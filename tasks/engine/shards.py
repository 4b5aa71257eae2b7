"""Long work in pieces whose results are kept, so that a killed run goes on with the next one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.engine.files import read_json, write_text


def sharded(scratch: Path, submit: Callable[..., Any] | None = None, window: int = 1) -> Callable[..., Iterator[Any]]:
    """`Context.shards` that keeps each finished shard's result in `scratch`, so that a killed run goes on with the next one.

    submit(work, shard) starts a shard elsewhere and returns something with `.result()`; without it several shards have a thread each.
    At most `window` are under way: one by default, since scripts share the interpreter and a local model its threads.
    """

    def shards(name: str, work: Callable[[Sequence[Any]], Any], items: Sequence[Any], size: int) -> Iterator[Any]:
        folder = scratch / "shards" / name
        pieces = [items[start : start + size] for start in range(0, len(items), size)]
        waiting: list[tuple[Path, Any]] = []
        ahead = 0
        with ExitStack() as until_the_end:
            start = submit or (_Later if window == 1 else _in_threads(until_the_end.enter_context(ThreadPoolExecutor(window))))
            for index in range(len(pieces)):
                while ahead < len(pieces) and ahead < index + window:
                    path = folder / f"{ahead:06d}.json"
                    waiting.append((path, None if read_json(path) else start(work, pieces[ahead])))
                    ahead += 1
                path, pending = waiting.pop(0)
                if pending is not None:
                    write_text(path, json.dumps({"result": pending.result()}))
                yield json.loads(path.read_text(encoding="utf-8"))["result"]

    return shards


@dataclass
class _Later:
    work: Callable[[Sequence[Any]], Any]
    items: Sequence[Any]

    def result(self) -> Any:
        return self.work(self.items)


def _in_threads(pool: ThreadPoolExecutor) -> Callable[..., Any]:
    """`submit` to a pool; the run that a shard belongs to is known in its thread too."""
    return lambda work, items: pool.submit(copy_context().run, work, items)
