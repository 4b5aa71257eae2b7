"""From the events of a run (see `tasks.engine.plan.Plan.watch`) to MLflow: a thread of its own passes them on.

A journal keeps them until they have arrived, so that a tracker that is slow or lost ends no training, and a kill loses no figure.
MLflow is imported when the first stage is computed; a run that finds everything cached never pays for it.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tasks.engine import process
from tasks.engine.journal import Event, Journal
from tasks.engine.mlflow_run import DATASETS, MlflowRun, printable_uri
from tasks.engine.origin import origin, origin_tags
from tasks.engine.plan import Plan
from tasks.engine.run_name import description, params_text, run_name
from tasks.worlds import UNSEEN

PATIENCE = 30.0
"""Seconds that the end of a run waits for the tracker; ours. What was not told by then is told by the next run."""
BACKLOG = 200
"""Events waiting beyond which figures of calls under way are left out; ours."""


class Tracker:
    """A watcher that keeps MLflow up to date.

    state: the state root. facts: whose run it is (see `facts`). tell: is told once, in a sentence, that the tracker is lost.
    server: asked inside a flow for Prefect's url, and whether it is the run's own.
    """

    def __init__(
        self,
        state: Path,
        facts: Mapping[str, Any],
        tell: Callable[[str], None] = lambda text: None,
        server: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self.state, self.facts = state, dict(facts)
        self.mlflow = MlflowRun(state, self.facts)
        self.lost = ""
        self.tell, self._server = tell, server
        self._lock = threading.RLock()
        self._waiting: deque[Event] = deque()
        self._changed = threading.Condition()
        self._busy = False
        self._sender: threading.Thread | None = None
        self._journal: Journal | None = None
        self._linked: dict[str, str] = {}

    @classmethod
    def of(cls, plan: Plan, tell: Callable[[str], None] = lambda text: None, server: Callable[[], Mapping[str, Any]] = dict) -> Tracker:
        """The tracker of a plan's run."""
        return cls(plan.store.state, facts(plan), tell, server)

    def watch(self, plan: Plan) -> Callable[[str, str, Mapping[str, Any]], None]:
        """What to call with each event of the plan."""

        def note(stage: str, event: str, details: Mapping[str, Any]) -> None:
            if event == "started":
                details = {**details, "params": plan.settings.values(stage)}
                if "name" not in self.facts:
                    self.facts.update(details_of(plan))
                if not self.facts["prefect"] and (flow := _flow_run()):
                    self.facts["prefect"] = {**flow, **self._server()}
            self(stage, event, details)

        return note

    def __call__(self, stage: str, event: str, details: Mapping[str, Any]) -> None:
        """Take note of an event; it is passed on by the thread."""
        if event == "cached":
            self._linked[stage] = details["identity"]
        if not self.mlflow.handles(event) or (event == "calls" and (self.lost or len(self._waiting) > BACKLOG)):
            return
        self._send((stage, event, {**details, "at": int(time.time() * 1000)}))

    def _send(self, event: Event) -> None:
        with self._lock:
            if self._journal is None:
                import mlflow  # noqa: F401  # here, not in the thread: imports and the parsing of code do not go well side by side

                self._journal = Journal(self.state, self.facts["run"], self.facts)
            if event[1] != "calls":
                self._journal.add(*event)
        with self._changed:
            if self._sender is None:
                self._sender = threading.Thread(target=self._pass_on, name="tracker", daemon=True)
                self._sender.start()
            self._waiting.append(event)
            self._changed.notify_all()

    def _pass_on(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting))
                event = self._waiting.popleft()
                self._busy = True
            self._try(event)
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _try(self, event: Event) -> None:
        if self.lost:
            return
        try:
            self.handle(event)
        except Exception as error:  # whatever the tracker's client raises: a training does not end for it
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        message = (str(error).splitlines() or [""])[0][:200]
        self.lost = f"MLflow at {printable_uri(self.facts['uri'])} failed ({type(error).__name__}: {message})"
        self.tell(f"{self.lost}; the run goes on, and the next one (or `cairn doctor`) logs there what is missing")

    def handle(self, event: Event) -> None:
        """Tell MLflow of an event now. Raises what its client raises."""
        with self._lock:
            self.mlflow.handle(event)

    def flush(self) -> bool:
        """Wait until everything is passed on, not longer than PATIENCE; whether it was."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, PATIENCE) and not self.lost

    def measured(self, metrics: Mapping[str, Any]) -> None:
        """Give each checkpoint of this run its pass^1 by world, as metrics of its logged model; nothing without a run in MLflow."""
        if self._journal is not None or self.mlflow.begun:
            told = {name: metrics[name] for name in ("evaluate", "overall", UNSEEN, "as_served") if name in metrics}
            self._send(("", "measured", {**told, "at": int(time.time() * 1000)}))

    def close(self, error: BaseException | None, prefect_lost: bool = False) -> None:
        """End the run: links to what was cached, and a status. Does nothing when nothing was computed or registered.

        prefect_lost: Prefect's server cannot be told that the run is over, so the journal stays for who can tell it.
        """
        if self._journal is None and not self.mlflow.begun:
            return
        status = "FINISHED" if error is None else "KILLED" if cancelled(error) else "FAILED"
        self._send(("", "closed", {"status": status, "linked": self._linked, "others": 1}))
        delivered = self.flush()
        if not delivered and not self.lost:
            self._lose(TimeoutError(f"no answer within {PATIENCE:.0f} s"))
        if self._journal:
            self._journal.close(delivered and not (prefect_lost and self.facts["prefect"]))


def cancelled(error: BaseException) -> bool:
    """Whether what ended a run came from outside: Ctrl-C, a signal, a cancelled flow; or is what a stopped training said first."""
    return not isinstance(error, Exception) or process.stopped()


def facts(plan: Plan) -> dict[str, Any]:
    """Whose run a plan is. prefect: the flow run that it is made in ({flow_run, url, own}), empty
    outside one; own: on a server that ends with the run, whose database the next one has."""
    return {
        "run": plan.run_key,
        "profile": plan.settings.shared.profile,
        "tags": origin_tags(origin(plan.settings.project)),
        "uri": os.environ["MLFLOW_TRACKING_URI"],
        "prefect": {},
    }


def details_of(plan: Plan) -> dict[str, Any]:
    """What is said of a run beside `facts`, once something is computed: name, description, params (dotted key -> text), datasets
    (step -> room, of the steps that leave data), and traces (how many conversations of an evaluation become some)."""
    settings, came = plan.settings, origin(plan.settings.project)
    return {
        "name": run_name(settings),
        "description": description(settings, came["commit"], came["dirty"]),
        "params": params_text(settings.tree),
        "datasets": {step.name: step.room for step in settings.road if step.room in DATASETS},
        "traces": settings.shared.tracking.traces,
    }


def _flow_run() -> dict[str, str]:
    from prefect.context import FlowRunContext, TaskRunContext

    flow, task = FlowRunContext.get(), TaskRunContext.get()
    run = flow.flow_run.id if flow and flow.flow_run else task.task_run.flow_run_id if task else None
    return {"flow_run": str(run)} if run else {}
