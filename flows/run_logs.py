"""The lines that a person sees while a run goes on, in the Logs tab of Prefect's UI as well.

Prefect's own logging is switched off in our processes (its lines say nothing that ours do not). A thread of its own sends ours, so that
a server that answers slowly or not at all holds nothing up.
"""

from __future__ import annotations

import datetime
import itertools
import logging
import sys
from collections.abc import Mapping
from contextvars import Context, copy_context
from typing import Any

from flows.console import Console
from flows.late_sender import PATIENCE, LateSender
from flows.server_lost import impatient


class Logs:
    """A watcher that sends the console's lines to the run it is called in; outside one it does nothing, and it never fails a run."""

    def __init__(self) -> None:
        self._console = Console(line=self._add)
        self._stages: dict[str, Context] = {}
        """By stage, the context in which it began: Prefect keeps the run there, and a stage's threads do not see it."""
        self._sender: LateSender[int, tuple[Context, dict[str, Any]]] = LateSender("lines for Prefect", self._send_all)
        self._numbers = itertools.count()

    def __call__(self, stage: str, event: str, details: Mapping[str, Any]) -> None:
        """Send what the console says of an event."""
        if event == "started":
            self._stages[stage] = copy_context()
        self._console(stage, event, details)

    def close(self) -> None:
        """Wait a little for what is still to be sent; afterwards nothing is."""
        self._sender.close()

    def _add(self, stage: str, text: str) -> None:
        context = self._stages.get(stage) or copy_context()
        run = context.copy().run(_run_ids)
        if run:
            now = datetime.datetime.now(datetime.UTC).isoformat()
            line = {"name": f"cairn.{stage}", "level": logging.INFO, "message": text, "timestamp": now, **run}
            self._sender.put(next(self._numbers), (context, line))

    def _send_all(self, waiting: dict[int, tuple[Context, dict[str, Any]]]) -> None:
        context = next(iter(waiting.values()))[0]
        try:
            context.copy().run(_send, [line for _, line in waiting.values()])
        except Exception:  # a view; that the server is lost is said once, by who shows the progress
            self._sender.over = True


def _send(lines: list[dict[str, Any]]) -> None:
    from prefect.client.orchestration import get_client

    with impatient(PATIENCE), get_client(sync_client=True) as client:
        client.create_logs(lines)


def _run_ids() -> dict[str, str]:
    """The flow run, and the task run, that this is called in; {} outside of one."""
    if "prefect" not in sys.modules:  # no run of Prefect's goes on in a process that never loaded it
        return {}
    from prefect.context import FlowRunContext, TaskRunContext

    if (task := TaskRunContext.get()) is not None:
        return {"flow_run_id": str(task.task_run.flow_run_id), "task_run_id": str(task.task_run.id)}
    flow = FlowRunContext.get()
    return {"flow_run_id": str(flow.flow_run.id)} if flow is not None and flow.flow_run else {}
