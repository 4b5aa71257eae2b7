"""What Prefect's UI shows while a stage runs: an artifact for the progress of each part, and one for the calls to models."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from threading import Lock
from typing import Any

from flows.live import lines

EVERY = 5.0
"""Seconds between two updates of one artifact; ours: each is a request to Prefect's server."""


class Artifacts:
    """A watcher that writes artifacts of the run it is called in; outside one it does nothing, and it never fails a run."""

    def __init__(self, every: float = EVERY) -> None:
        self._every = every
        self._ids: dict[str, Any] = {}
        self._last: dict[str, float] = {}
        self._notes: dict[str, str] = {}
        self._lock = Lock()

    def __call__(self, stage: str, event: str, about: Mapping[str, Any]) -> None:
        """Show a progress, or how calls to models go."""
        if event == "progress" and about["total"]:
            part = about["note"].split()[0] if about["note"] else ""
            said = f"{about['done']} of {about['total']} {about['note']}"
            self._show(stage, part, 100.0 * about["done"] / about["total"], said, about["done"] >= about["total"])
        elif event == "calls" and about["total"]:
            said = "\n".join(f"- {line}" for line in lines(about))
            self._show(stage, "calls", 100.0 * about["done"] / about["total"], said, about["last"])

    def _show(self, stage: str, part: str, percent: float, said: str, last: bool) -> None:
        key = re.sub(r"[^a-z0-9]+", "-", f"{stage}-{part}".lower()).strip("-")
        with self._lock:
            now = time.monotonic()
            if not last and now - self._last.get(key, -self._every) < self._every:
                return
            self._last[key] = now
            with suppress(Exception):  # a view; what it cannot show must not end a run
                self._write(key, percent, said)

    def _write(self, key: str, percent: float, said: str) -> None:
        from prefect.artifacts import create_progress_artifact, update_progress_artifact
        from prefect.context import FlowRunContext, TaskRunContext

        if TaskRunContext.get() is None and FlowRunContext.get() is None:
            return
        if key in self._ids:
            update_progress_artifact(self._ids[key], percent, said, _sync=True)  # type: ignore[call-arg]
        else:
            self._ids[key] = create_progress_artifact(percent, key, said)
