"""What a person sees while a run goes on: lines, and below them bars on a terminal or a plain line now and then when piped."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from flows.call_figures import lines

if TYPE_CHECKING:
    from flows.progress_bars import Bars

EVERY = 10.0
"""Seconds between two plain progress lines when piped."""
DRAWN = 0.2
"""Seconds between two drawings of a bar."""


Item = TypeVar("Item")
QUIET = 1.0
"""Seconds that a command may take before it shows how far it is."""
Progress = Callable[[int, int, str], None]
"""Told of done, total (0: nobody knows) and a note."""


@contextmanager
def showing_progress(name: str) -> Iterator[Progress]:
    """For long work outside of a run: gives what to tell of progress; the bar is gone when the block ends. name: of the work."""
    console = Console()

    def progress(done: int, total: int, note: str = "") -> None:
        console(name, "progress", {"done": done, "total": total, "note": note})

    try:
        yield progress
    finally:
        console.close()


def tracked(items: Iterable[Item], total: int, name: str, note: str) -> Iterator[Item]:
    """The same items; where they take long, how many of `total` were handed out is shown."""
    with showing_progress(name) as progress:
        start = time.monotonic()
        for done, item in enumerate(items, 1):
            yield item
            if time.monotonic() - start > (QUIET if sys.stderr.isatty() else EVERY):
                progress(done, total, note)


class Console:
    """A watcher that prints. Events of several threads are printed one at a time."""

    def __init__(self, stream: TextIO | None = None, line: Callable[[str, str], None] | None = None) -> None:
        """line: gets each line (stage, text) instead of `stream`, as plain ones."""
        self.stream = stream = stream or sys.stderr
        self._other = line
        self.live = line is None and stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")
        self._lock = Lock()
        self._first: dict[str, tuple[float, int]] = {}
        self._printed: dict[str, float] = {}

    def __call__(self, stage: str, event: str, details: Mapping[str, Any]) -> None:
        """Print an event, if it is one for people."""
        with self._lock:
            handler = getattr(self, f"_on_{event}", None)
            if handler:
                handler(stage, details)

    @cached_property
    def _bars(self) -> Bars:
        """Made for the first progress on a terminal: rich takes a tenth of a second to load."""
        from flows.progress_bars import Bars

        return Bars(self.stream)

    def close(self) -> None:
        """Take the bars away; what was under way is over."""
        self._finish()

    def _finish(self, stage: str = "") -> None:
        if "_bars" in self.__dict__:
            self._bars.finish(stage)

    def _line(self, stage: str, text: str) -> None:
        if self._other:
            self._other(stage, text)
        elif "_bars" in self.__dict__:
            self._bars.line(f"{stage:<9} {text}")
        else:
            print(f"{stage:<9} {text}", file=self.stream, flush=True)

    def _on_started(self, stage: str, details: Mapping[str, Any]) -> None:
        self._line(stage, f"runs     {details['method']}")

    def _on_waiting(self, stage: str, details: Mapping[str, Any]) -> None:
        self._line(stage, f"waits    {details['note']}")

    def _on_cached(self, stage: str, details: Mapping[str, Any]) -> None:
        self._line(stage, f"cached   {details['identity'][:12]}")

    def _on_adopted(self, stage: str, details: Mapping[str, Any]) -> None:
        self._line(stage, f"adopted  {details['identity'][:12]} as DVC holds it")

    def _on_done(self, stage: str, details: Mapping[str, Any]) -> None:
        self._finish(stage)
        self._line(stage, f"done     {details['identity'][:12]} in {details['seconds']:.1f} s")
        if warning := details["figures"].get("warning"):
            self._line(stage, f"warning  {warning}")
        if stopped := details["figures"].get("stopped"):
            self._line(stage, f"stopped  before everything was made: {stopped}")

    def _on_note(self, stage: str, details: Mapping[str, Any]) -> None:
        self._line(stage, details["note"])

    def _on_calls(self, stage: str, details: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if details["last"] or now - self._printed.get(f"{stage} calls", 0.0) >= EVERY:
            self._printed[f"{stage} calls"] = now
            for line in lines(details):
                self._line(stage, line)

    def _on_progress(self, stage: str, details: Mapping[str, Any]) -> None:
        part = "".join(details["note"].split()[:1])
        now, key, done, total = time.monotonic(), f"{stage} {part}", details["done"], details["total"]
        if now - self._printed.get(key, 0.0) < (DRAWN if self.live else EVERY) and not (self.live and done >= total > 0):
            return
        self._printed[key] = now
        if self.live:
            self._bars.show(stage, part, done, total, details["note"])
            return
        if done < self._first.get(key, (now, done))[1]:
            del self._first[key]  # another phase of the same stage counts from its own start
        begun, before = self._first.setdefault(key, (now, done))
        left = f", {(now - begun) / (done - before) * (total - done):.0f} s left" if total and done > before else ""
        self._line(stage, f"{done}{f'/{total}' if total else ''} {details['note']}{left}")
