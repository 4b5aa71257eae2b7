"""How calls to models go while a stage runs: told to the run's watcher every few seconds, and once more at its end.

A stage without a model behind a server tells nothing.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

EVERY = 2.0
"""Seconds between two reports; ours: what people can read."""
Progress = Callable[[int, int, str], None]


@contextmanager
def telling(
    watch: Callable[[str, str, Mapping[str, Any]], None], stage: str, run: str, progress: Progress, every: float = EVERY
) -> Iterator[Progress]:
    """Tell the watcher of the event "calls" while the block runs: {roles, done, total, seconds, last}. Gives the progress to hand to
    the method, from which `done` and `total` are taken. run: names the run in `tasks.players.openai_compatible.stats`."""
    seen = {"done": 0, "total": 0}
    start, over = time.monotonic(), threading.Event()

    def counted(done: int, total: int, note: str = "") -> None:
        seen.update(done=done, total=total)
        progress(done, total, note)

    def tell(last: bool) -> None:
        from tasks.players.openai_compatible import stats

        seconds = max(time.monotonic() - start, 1e-3)
        roles = {
            role: {**figures, "tokens_per_second": (figures["tokens_in"] + figures["tokens_out"]) / seconds}
            for role, figures in stats(run).items()
        }
        if roles:
            watch(stage, "calls", {"roles": roles, **seen, "seconds": round(seconds, 1), "last": last})

    def tick() -> None:
        while not over.wait(every):
            tell(last=False)

    # The thread sees what this one sees: Prefect keeps the run that an artifact belongs to in context variables.
    ticker = threading.Thread(target=contextvars.copy_context().run, args=(tick,), name=f"live {stage}", daemon=True)
    ticker.start()
    try:
        yield counted
    finally:
        over.set()
        ticker.join()
        tell(last=True)
