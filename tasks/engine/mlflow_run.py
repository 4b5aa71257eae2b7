"""What MLflow holds of a pipeline run: one run, one nested run per stage with its curves and figures, and the checkpoints."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from tasks.engine.journal import Event, alive
from tasks.worlds import UNSEEN

EXPERIMENT = "cairn"


class MlflowRun:
    """A pipeline run in MLflow, brought up to date event by event. Runs are found again by their key, so several processes and
    attempts share them. Everything raises what MLflow's client raises.

    state: the state root. facts: whose run it is (see `tasks.engine.track.facts`); `prefect` may be filled in until the first event.
    """

    def __init__(self, state: Path, facts: Mapping[str, Any]) -> None:
        self.state, self.facts = state, facts
        self.begun = False
        self._runs: dict[str, str] = {}
        self._curves: dict[str, list[tuple[str, float, int, int]]] = {}

    def handles(self, event: str) -> bool:
        """Whether MLflow is told of events of this name."""
        return hasattr(self, f"_on_{event}")

    def handle(self, event: Event) -> None:
        """Tell MLflow of an event."""
        stage, name, about = event
        getattr(self, f"_on_{name}")(stage, about)

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
        self.begun = True
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

    def _on_measured(self, stage: str, details: Mapping[str, Any]) -> None:
        self._measure(details, details["at"])

    def _measure(self, metrics: Mapping[str, Any], at: int) -> None:
        for model in self._models():
            known = {metric.key for metric in model.metrics or ()}
            for name, mean in _measured(metrics, model.name):
                if name not in known:
                    self.client.log_metric(self.parent, name, mean, timestamp=at, model_id=model.model_id)
        for name, mean in _measured(metrics, "contender"):  # no checkpoint of any run
            self.client.log_metric(self.parent, name, mean, timestamp=at)

    def _on_closed(self, stage: str, details: Mapping[str, Any]) -> None:
        for name, identity in details["linked"].items():
            self.client.set_tag(self.parent, f"cairn.cached.{name}", identity)
        for run in self._runs.values():
            if self.client.get_run(run).info.status == "RUNNING":
                self.client.set_terminated(run, details["status"])
        if alive(self.state, self.facts["run"]) <= details["others"]:  # else another process goes on with the same run
            self.client.set_terminated(self.parent, details["status"])


def _measured(metrics: Mapping[str, Any], model: str) -> Iterator[tuple[str, float]]:
    """(name, pass^1) of a model in each world; of those that no training saw under a name that says so."""
    for mark, part in (("", metrics), (f"{UNSEEN}.", metrics.get(UNSEEN) or {})):
        for world, figures in part.get("evaluate", {}).get(model, {}).items():
            yield f"{model}.{mark}{world}.pass_1", figures["pass_1"]["mean"]


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
