"""MLflow, and the only module that knows it: one run per pipeline run, one nested run per stage, checkpoints, the registry.

Everything arrives as events of a run (see `tasks.engine.plan.Plan.watch`); a thread of its own passes them on, and a journal
keeps them
until they have arrived, so that a tracker that is slow or lost ends no training, and a kill loses no figure. MLflow is imported when
the first stage is computed; a run that finds everything cached never pays for it.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from tasks.engine.journal import Event, Journal, alive
from tasks.engine.origin import origin, origin_tags
from tasks.engine.plan import Plan

EXPERIMENT = "cairn"
PATIENCE = 30.0
"""Seconds that the end of a run waits for the tracker; ours. What was not told by then is told by the next run."""
BACKLOG = 200
"""Events waiting beyond which figures of calls under way are left out; ours."""


class Tracker:
    """A watcher that keeps MLflow up to date. Runs are found again by their key, so several processes and attempts share them.

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
        self.lost = ""
        self._tell, self._server = tell, server
        self._lock = threading.RLock()
        self._waiting: deque[Event] = deque()
        self._changed = threading.Condition()
        self._busy = False
        self._sender: threading.Thread | None = None
        self._journal: Journal | None = None
        self._begun = False
        self._runs: dict[str, str] = {}
        self._curves: dict[str, list[tuple[str, float, int, int]]] = {}
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
                if not self.facts["prefect"] and (flow := _flow_run()):
                    self.facts["prefect"] = {**flow, **self._server()}
            self(stage, event, details)

        return note

    def __call__(self, stage: str, event: str, details: Mapping[str, Any]) -> None:
        """Take note of an event; it is passed on by the thread."""
        if not hasattr(self, f"_on_{event}"):
            return
        if event == "cached":
            self._linked[stage] = details["identity"]
            return
        if event == "calls" and (self.lost or len(self._waiting) > BACKLOG):
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
        said = (str(error).splitlines() or [""])[0][:200]
        self.lost = f"MLflow at {shown(self.facts['uri'])} failed ({type(error).__name__}: {said})"
        self._tell(f"{self.lost}; the run goes on, and the next one (or `cairn doctor`) logs there what is missing")

    def handle(self, event: Event) -> None:
        """Tell MLflow of an event now. Raises what its client raises."""
        stage, name, about = event
        with self._lock:
            getattr(self, f"_on_{name}")(stage, about)

    def flush(self) -> bool:
        """Wait until everything is passed on, not longer than PATIENCE; whether it was."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, PATIENCE) and not self.lost

    @cached_property
    def client(self) -> Any:
        """The MLflow client, with the experiment's artifacts under the state root."""
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        from mlflow import MlflowClient

        return MlflowClient(self.facts["uri"])

    @cached_property
    def experiment(self) -> str:
        """Id of the experiment that holds all runs of this project."""
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found:
            return str(found.experiment_id)
        return str(self.client.create_experiment(EXPERIMENT, artifact_location=str(self.state / "mlartifacts")))

    @cached_property
    def parent(self) -> str:
        """Id of this pipeline run's MLflow run, found again by the run's key or created."""
        tags = {"cairn.run": self.facts["run"], "cairn.profile": self.facts["profile"], **self.facts["tags"]}
        tags |= {"prefect.flow_run": self.facts["prefect"]["flow_run"]} if self.facts["prefect"] else {}
        self._begun = True
        return self._find_or_create(f"tags.`cairn.run` = '{self.facts['run']}'", f"cairn {tags['cairn.profile']}", tags)

    def _find_or_create(self, query: str, name: str, tags: Mapping[str, str]) -> str:
        found = self.client.search_runs([self.experiment], filter_string=query, max_results=1)
        if found:
            self.client.update_run(found[0].info.run_id, status="RUNNING")
            return str(found[0].info.run_id)
        return str(self.client.create_run(self.experiment, run_name=name, tags=dict(tags)).info.run_id)

    # events ----------------------------------------------------------------------------------------------------------

    def _on_started(self, stage: str, details: Mapping[str, Any]) -> None:
        key = details["key"]
        query = f"tags.`cairn.key` = '{key}' and tags.`mlflow.parentRunId` = '{self.parent}'"
        tags = {"mlflow.parentRunId": self.parent, "cairn.key": key, "cairn.stage": stage, "cairn.method": details["method"]}
        run = self._runs[stage] = self._find_or_create(query, f"{stage}: {details['method']}", tags)
        known = self.client.get_run(run).data.params
        from mlflow.entities import Param

        fresh = [Param(name, str(value)[:6000]) for name, value in details["params"].items() if name not in known]
        self.client.log_batch(run, params=fresh)

    def _on_log(self, stage: str, details: Mapping[str, Any]) -> None:
        self._curves.setdefault(stage, []).append((details["name"], details["value"], details["step"], details["at"]))

    def _on_calls(self, stage: str, details: Mapping[str, Any]) -> None:
        """At once, for who looks at a run that goes on. The step is the second."""
        from mlflow.entities import Metric

        step = int(details["seconds"])
        figures = [(f"calls/{role}/{name}", value) for role, found in details["roles"].items() for name, value in _numbers(found)]
        self._log(self._runs[stage], [Metric(_name(name), value, details["at"], step) for name, value in figures])

    def _log(self, run: str, metrics: list[Any]) -> None:
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(run, metrics=metrics[start : start + 1000])

    def _on_done(self, stage: str, details: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric, RunTag

        run, now = self._runs[stage], details["at"]
        metrics = [Metric(_name(name), value, at, step) for name, value, step, at in self._curves.pop(stage, [])]
        metrics += [Metric(_name(name), value, now, 0) for name, value in _numbers(details["figures"])]
        self._log(run, [*metrics, Metric("seconds", details["seconds"], now, 0)])
        self.client.log_batch(run, tags=[RunTag("cairn.artifact", details["identity"])])
        self._log_models(run, details)
        if "evaluate" in details["figures"]:
            self._measure(details["figures"], now)
        self.client.set_terminated(run)
        self.client.set_tag(self.parent, f"cairn.artifact.{stage}", details["identity"])

    def _on_cached(self, stage: str, details: Mapping[str, Any]) -> None:
        self._linked[stage] = details["identity"]

    def _log_models(self, run: str, details: Mapping[str, Any]) -> None:
        there = {(model.name, model.tags.get("cairn.artifact")) for model in self._models()}
        for name in details.get("checkpoints", ()):
            if (name, details["identity"]) not in there:  # an event that is told again after a kill
                tags = {"cairn.artifact": details["identity"], "cairn.checkpoint": name, "cairn.key": self.facts["run"]}
                model = self.client.create_logged_model(self.experiment, name=name, source_run_id=run, tags=tags)
                self.client.finalize_logged_model(model.model_id, "READY")

    def _models(self) -> list[Any]:
        """The checkpoints of this run, whichever process logged them."""
        query = f"tags.`cairn.key` = '{self.facts['run']}'"
        return list(self.client.search_logged_models([self.experiment], filter_string=query))

    def measured(self, metrics: Mapping[str, Any]) -> None:
        """Give each checkpoint of this run its pass^1 by world, as metrics of its logged model; nothing without a run in MLflow."""
        if self._journal is not None or self._begun:
            self._send(("", "measured", {"evaluate": metrics.get("evaluate", {}), "at": int(time.time() * 1000)}))

    def _on_measured(self, stage: str, details: Mapping[str, Any]) -> None:
        self._measure(details, details["at"])

    def _measure(self, metrics: Mapping[str, Any], at: int) -> None:
        for model in self._models():
            known = {metric.key for metric in model.metrics or ()}
            for world, figures in metrics.get("evaluate", {}).get(model.name, {}).items():
                name = f"{model.name}.{world}.pass_1"
                if name not in known:
                    self.client.log_metric(self.parent, name, figures["pass_1"]["mean"], timestamp=at, model_id=model.model_id)

    def _on_closed(self, stage: str, details: Mapping[str, Any]) -> None:
        for name, identity in details["linked"].items():
            self.client.set_tag(self.parent, f"cairn.cached.{name}", identity)
        for run in self._runs.values():
            if self.client.get_run(run).info.status == "RUNNING":
                self.client.set_terminated(run, details["status"])
        if alive(self.state, self.facts["run"]) <= details["others"]:  # else another process goes on with the same run
            self.client.set_terminated(self.parent, details["status"])

    def close(self, error: BaseException | None, prefect_lost: bool = False) -> None:
        """End the run: links to what was cached, and a status. Does nothing when nothing was computed or registered.

        prefect_lost: Prefect's server cannot be told that the run is over, so the journal stays for who can tell it.
        """
        if self._journal is None and not self._begun:
            return
        status = "FINISHED" if error is None else "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        self._send(("", "closed", {"status": status, "linked": self._linked, "others": 1}))
        told = self.flush()
        if not told and not self.lost:
            self._lose(TimeoutError(f"no answer within {PATIENCE:.0f} s"))
        if self._journal:
            self._journal.close(told and not (prefect_lost and self.facts["prefect"]))


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


def _flow_run() -> dict[str, str]:
    from prefect.context import FlowRunContext, TaskRunContext

    flow, task = FlowRunContext.get(), TaskRunContext.get()
    run = flow.flow_run.id if flow and flow.flow_run else task.task_run.flow_run_id if task else None
    return {"flow_run": str(run)} if run else {}


def shown(uri: str) -> str:
    """An address without the password that may stand in it."""
    head, at, tail = uri.rpartition("@")
    return f"{head.partition('://')[0]}://...@{tail}" if at else uri


# --- the registry ----------------------------------------------------------------------------------------------------


def register(tracker: Tracker, name: str, checkpoint: Path, tags: Mapping[str, str], note: str) -> str:
    """Log a checkpoint as a transformers model of this pipeline run and register it; returns the new version.

    The model carries the tokenizer and the chat template, and loads by `models:/<name>@<alias>` with no code of ours.
    """
    tracker.flush()
    import mlflow
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(checkpoint, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    mlflow.set_tracking_uri(tracker.client.tracking_uri)
    mlflow.set_experiment(experiment_id=tracker.experiment)
    with mlflow.start_run(run_id=tracker.parent):
        logged = mlflow.transformers.log_model(
            transformers_model={"model": model, "tokenizer": tokenizer},
            name=name,
            task="llm/v1/chat",
            pip_requirements=["transformers", "torch"],
        )
    client = tracker.client
    if not client.search_registered_models(filter_string=f"name = '{name}'"):
        client.create_registered_model(name)
    version = client.create_model_version(
        name, source=logged.model_uri, run_id=tracker.parent, tags=dict(tags), description=note, model_id=logged.model_id
    )
    return str(version.version)


def version_with(tracker: Tracker, name: str, tag: str, value: str) -> str | None:
    """The version of a model that carries a tag's value, None when there is none."""
    found = tracker.client.search_model_versions(f"name = '{name}' and tags.`{tag}` = '{value}'")
    return str(found[0].version) if found else None


def move_alias(tracker: Tracker, name: str, alias: str, version: str) -> None:
    """Point an alias at a version."""
    tracker.client.set_registered_model_alias(name, alias, version)


def _numbers(figures: Any, prefix: str = "") -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for name, value in figures.items():
        if isinstance(value, Mapping):
            found += _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found.append((f"{prefix}{name}", float(value)))
    return found


def _name(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "_-./ " else "_" for letter in text)
