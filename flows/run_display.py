"""What Prefect's UI shows while a stage runs: an artifact for the progress of each part, and one for the calls to models.

A thread of its own sends them, the latest of each artifact alone, so that a server that answers slowly or not at all holds nothing up.
"""

from __future__ import annotations

import contextvars
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from flows import server_lost
from flows.call_figures import lines
from flows.late_sender import PATIENCE, LateSender

EVERY = 5.0
"""Seconds between two updates of one artifact; ours: each is a request to Prefect's server."""
PAUSE = 60.0
"""Seconds until a server that did not answer is tried again; ours."""


class Artifacts:
    """A watcher that writes artifacts of the run it is called in; outside one it does nothing, and it never fails or slows a run.

    tell: is told once, in a sentence, that the server does not answer.
    """

    def __init__(self, every: float = EVERY, tell: Callable[[str], None] = lambda text: None, pause: float = PAUSE) -> None:
        self._every, self._tell, self._pause = every, tell, pause
        self._runs: dict[str, contextvars.Context] = {}
        """By stage, the context in which it began: Prefect keeps the run there, and a stage's threads do not see it."""
        self._parts: dict[tuple[str, str], tuple[float, str]] = {}
        """By stage and part, how far it came (percent) and what was told of it."""
        self._ids: dict[str, Any] = {}
        self._last: dict[str, float] = {}
        self._showing = threading.Lock()
        self._sender: LateSender[str, tuple[contextvars.Context, float, str]] = LateSender("progress for Prefect", self._send_all)
        self._reported = False
        self.lost = False
        """Whether the server was gone at the end."""
        self._again = 0.0

    def __call__(self, stage: str, event: str, details: Mapping[str, Any]) -> None:
        """Show a progress, or how calls to models go."""
        if event == "started":
            self._runs[stage] = contextvars.copy_context()
        elif event == "progress" and details["total"]:
            note = details["note"]
            part = note.split()[0] if note else ""
            if part and not part[0].isalpha():  # a figure: the note is not of a part
                return
            said = f"{details['done']} of {details['total']} {note}"
            self._show(stage, part, 100.0 * details["done"] / details["total"], said, details["done"] >= details["total"])
        elif event == "calls" and details["total"]:
            said = "\n".join(f"- {line}" for line in lines(details))
            self._show(stage, "calls", 100.0 * details["done"] / details["total"], said, details["last"])
        elif event == "done":
            for (other, part), (percent, text) in list(self._parts.items()):
                if other == stage and percent < 100:  # enough was made before everything was tried
                    self._show(stage, part, 100.0, f"ended at {percent:.0f} %: {text}", True)

    def close(self) -> None:
        """Wait a little for what is still to be sent; afterwards nothing is. A server that is gone by then is waited for no more."""
        self._sender.close()
        if "prefect" in sys.modules and not server_lost.answers():
            self._lose("no answer")
            self.lost = True
            server_lost.let_go()

    def _show(self, stage: str, part: str, percent: float, text: str, last: bool) -> None:
        self._parts[stage, part] = (percent, text)
        key = re.sub(r"[^a-z0-9]+", "-", f"{stage}-{part}".lower()).strip("-")
        now, run = time.monotonic(), self._runs.get(stage) or contextvars.copy_context()
        with self._showing:
            if self._sender.over or (not last and now - self._last.get(key, -self._every) < self._every):
                return
            if not self._sender.begun:
                if not run.run(_in_a_run):
                    return
                server_lost.hush()
            self._last[key] = now
            self._sender.put(key, (run, percent, text))

    def _send_all(self, waiting: dict[str, tuple[contextvars.Context, float, str]]) -> None:
        for key, (context, percent, said) in waiting.items():
            if time.monotonic() >= self._again:
                context.run(self._send, key, percent, said)

    def _send(self, key: str, percent: float, text: str) -> None:
        import httpx

        try:
            with server_lost.impatient(PATIENCE):
                self._write(key, percent, text)
        except httpx.TransportError as error:
            self._again = time.monotonic() + self._pause
            self._lose(f"{type(error).__name__}: {error}".rstrip(": "))
        except Exception:  # a view; what it cannot show must not end a run
            return

    def _lose(self, how: str) -> None:
        if not self._reported:
            self._reported = True
            self._tell(f"Prefect's server does not answer any more ({how}); the run goes on, and Prefect shows no more of it")

    def _write(self, key: str, percent: float, text: str) -> None:
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        if key in self._ids:
            update_progress_artifact(self._ids[key], percent, text, _sync=True)  # type: ignore[call-arg]
        else:
            self._ids[key] = create_progress_artifact(percent, key, text, _sync=True)  # type: ignore[call-arg]


def _in_a_run() -> bool:
    if "prefect" not in sys.modules:  # no run of Prefect's goes on in a process that never loaded it
        return False
    from prefect.context import FlowRunContext, TaskRunContext

    return TaskRunContext.get() is not None or FlowRunContext.get() is not None
