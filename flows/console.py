"""What a person sees while a run goes on: a live line on a terminal, plain lines when piped."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from threading import Lock
from typing import Any, TextIO

from flows.live import lines

EVERY = 10.0
"""seconds between two plain progress lines when piped"""


class Console:
    """A watcher that prints. Events of several threads are printed one at a time."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self.stream = stream
        self.live = stream.isatty()
        self._lock = Lock()
        self._first: dict[str, tuple[float, int]] = {}
        self._said: dict[str, float] = {}

    def __call__(self, stage: str, event: str, about: Mapping[str, Any]) -> None:
        """Print an event, if it is one for people."""
        with self._lock:
            handler = getattr(self, f"_on_{event}", None)
            if handler:
                handler(stage, about)

    def close(self) -> None:
        """Clear the live line."""
        if self.live:
            print("\r\x1b[2K", end="", file=self.stream, flush=True)

    def _line(self, stage: str, text: str) -> None:
        start = "\r\x1b[2K" if self.live else ""
        print(f"{start}{stage:<9} {text}", file=self.stream, flush=True)

    def _on_started(self, stage: str, about: Mapping[str, Any]) -> None:
        self._line(stage, f"runs     {about['method']}")

    def _on_waiting(self, stage: str, about: Mapping[str, Any]) -> None:
        self._line(stage, f"waits    {about['note']}")

    def _on_cached(self, stage: str, about: Mapping[str, Any]) -> None:
        self._line(stage, f"cached   {about['identity'][:12]}")

    def _on_adopted(self, stage: str, about: Mapping[str, Any]) -> None:
        self._line(stage, f"adopted  {about['identity'][:12]} as DVC holds it")

    def _on_done(self, stage: str, about: Mapping[str, Any]) -> None:
        self._line(stage, f"done     {about['identity'][:12]} in {about['seconds']:.1f} s")
        if warning := about["figures"].get("warning"):
            self._line(stage, f"warning  {warning}")
        if stopped := about["figures"].get("stopped"):
            self._line(stage, f"stopped  before everything was made: {stopped}")

    def _on_note(self, stage: str, about: Mapping[str, Any]) -> None:
        self._line(stage, about["note"])

    def _on_calls(self, stage: str, about: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if about["last"] or now - self._said.get(f"{stage} calls", 0.0) >= EVERY:
            self._said[f"{stage} calls"] = now
            for line in lines(about):
                self._line(stage, line)

    def _on_progress(self, stage: str, about: Mapping[str, Any]) -> None:
        now, key = time.monotonic(), " ".join([stage, *about["note"].split()[:1]])
        done, total = about["done"], about["total"]
        if now - self._said.get(key, 0.0) < (0.2 if self.live else EVERY):
            return
        self._said[key] = now
        if done < self._first.get(key, (now, done))[1]:
            del self._first[key]  # another phase of the same stage counts from its own start
        begun, before = self._first.setdefault(key, (now, done))
        left = f", {(now - begun) / (done - before) * (total - done):.0f} s left" if total and done > before else ""
        text = f"{stage:<9} {done}{f'/{total}' if total else ''} {about['note']}{left}"
        print(f"\r\x1b[2K{text}" if self.live else text, end="" if self.live else "\n", file=self.stream, flush=True)
