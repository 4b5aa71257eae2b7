"""What MLflow holds of a pipeline run: one run, one nested run per stage with its curves and figures, and the checkpoints."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from tasks.engine.artifact import Store
from tasks.engine.figures import families, handful, measured, metric_name, numbers, results
from tasks.engine.journal import Event, alive

EXPERIMENT = "cairn"
DATASETS = {"worlds": "environment", "generate": "generated", "filter": "training"}
"""Rooms that leave data, and what MLflow calls its context."""
NOTE = 7500
"""Characters of a description that every store of MLflow takes."""
TRACES = "cairn.traces"
"""Tag of an evaluation's run: how many of its conversations are traces; with `.of`, of which artifact."""
LIVE = 2000
"""Milliseconds between two sendings of a curve's points, so that a training that logs often does not wait in line; ours."""


class MlflowRun:
    """A pipeline run in MLflow, brought up to date event by event. Runs are found again by their key, so several processes and
    attempts share them. Everything raises what MLflow's client raises.

    state: the state root. facts: whose run it is (`facts` and `details_of` of `tasks.engine.track`); what the latter gives, and
    `prefect`, may be filled in until the first event.
    """

    def __init__(self, state: Path, facts: Mapping[str, Any]) -> None:
        self.state, self.facts = state, facts
        self.begun = False
        self._runs: dict[str, str] = {}
        self._curves: dict[str, list[tuple[str, float, int, int]]] = {}
        self._sent: dict[str, int] = {}

    def handles(self, event: str) -> bool:
        """Whether MLflow is told of events of this name."""
        return hasattr(self, f"_on_{event}")

    def handle(self, event: Event) -> None:
        """Tell MLflow of an event."""
        stage, name, about = event
        getattr(self, f"_on_{name}")(stage, about)

    @cached_property
    def client(self) -> Any:
        """The MLflow client."""
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        from mlflow import MlflowClient

        return MlflowClient(self.facts["uri"])

    @cached_property
    def experiment(self) -> str:
        """Id of the experiment that holds all runs of this project, created when there is none."""
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found:
            return str(found.experiment_id)
        return str(
            self.client.create_experiment(EXPERIMENT, artifact_location=None if self.remote else str(self.state / "mlartifacts"))
        )

    @property
    def remote(self) -> bool:
        """Whether a tracking server is asked, which says where files go; a database alone does not, so the state root has them."""
        return str(self.facts["uri"]).startswith(("http://", "https://"))

    def kept_apart(self) -> str:
        """Where the experiment's files go when that is a folder although a server is asked: who loads them must see it. Else ""."""
        place = str(self.client.get_experiment(self.experiment).artifact_location)
        return place if self.remote and place.partition(":")[0] in ("file", place) else ""

    @cached_property
    def parent(self) -> str:
        """Id of this pipeline run's MLflow run, found again by the run's key or created."""
        tags = {"cairn.run": self.facts["run"], "cairn.profile": self.facts["profile"], **self.facts["tags"]}
        tags |= {"prefect.flow_run": self.facts["prefect"]["flow_run"]} if self.facts["prefect"] else {}
        tags |= {"mlflow.note.content": self.facts["description"][:NOTE]} if "description" in self.facts else {}
        self.begun = True
        name = self.facts.get("name") or self.facts["profile"]
        run = self._find_or_create(f"tags.`cairn.run` = '{self.facts['run']}'", name, tags)
        self._log_params(run, self.facts.get("params", {}))
        return run

    def address(self) -> str:
        """Where a browser finds this run: its URL, or without a tracking server the command that shows the database. "" while MLflow
        has not been told of the run. No password of the server's is in it."""
        if "parent" not in self.__dict__:
            return ""
        if not self.remote:
            return f"mlflow ui --backend-store-uri {printable_uri(self.facts['uri'])}  # run {self.parent}"
        server = re.sub(r"//[^/@]*@", "//", str(self.facts["uri"])).rstrip("/")
        return f"{server}/#/experiments/{self.experiment}/runs/{self.parent}"

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
        self._log_params(run, details["params"])

    def _log_params(self, run: str, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        known = self.client.get_run(run).data.params
        self.client.log_batch(run, params=[Param(name, str(value)[:6000]) for name, value in params.items() if name not in known])

    def _on_log(self, stage: str, details: Mapping[str, Any]) -> None:
        """A point of a curve, with the time at which it was computed; sent while the stage goes on."""
        self._curves.setdefault(stage, []).append((details["name"], details["value"], details["step"], details["at"]))
        if details["at"] - self._sent.get(stage, 0) >= LIVE:
            self._sent[stage] = details["at"]
            self._send_curves(stage)

    def _send_curves(self, stage: str) -> None:
        from mlflow.entities import Metric

        points = self._curves.pop(stage, [])
        self._log(self._runs[stage], [Metric(metric_name(name), value, at, step) for name, value, step, at in points])

    def _on_calls(self, stage: str, details: Mapping[str, Any]) -> None:
        """At once, for who looks at a run that goes on. The step is the second."""
        from mlflow.entities import Metric

        step = int(details["seconds"])
        figures = [(f"calls/{role}/{name}", value) for role, found in details["roles"].items() for name, value in numbers(found)]
        self._log(self._runs[stage], [Metric(metric_name(name), value, details["at"], step) for name, value in figures])

    def _log(self, run: str, metrics: list[Any]) -> None:
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(run, metrics=metrics[start : start + 1000])

    def _on_done(self, stage: str, details: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric, RunTag

        run, now, figures = self._runs[stage], details["at"], details["figures"]
        self._send_curves(stage)
        self._log(
            run, [Metric(metric_name(name), value, now, 0) for name, value in [*handful(figures), ("seconds", details["seconds"])]]
        )
        self._log_files(run, figures)
        self.client.log_batch(run, tags=[RunTag("cairn.artifact", details["identity"])])
        self._log_data(stage, details["identity"], figures)
        self._log_models(run, details)
        self.client.log_metric(self.parent, f"seconds.{stage}", details["seconds"], timestamp=now, step=0)
        if "evaluate" in figures:
            self._measure(figures, now)
        self.client.set_terminated(run)
        self.client.set_tag(self.parent, f"cairn.artifact.{stage}", details["identity"])
        if "evaluate" in figures:
            self._trace(run, details)

    def _trace(self, run: str, details: Mapping[str, Any]) -> None:
        """The conversations of an evaluation as traces, unless its method keeps none, or a run has them: its tag says so when all of
        them are there."""
        identity, most = details["identity"], self.facts.get("traces", 0)
        store = Store(self.state)
        if not most or not store.has(identity) or not (store.view(identity) / "trials.parquet").is_file():
            return
        if self.client.search_runs([self.experiment], filter_string=f"tags.`{TRACES}.of` = '{identity}'", max_results=1):
            return
        from tasks.engine import prompts, traces

        models, folder = traces.models_of(self._models()), store.view(identity)
        worlds = [store.view(one) for name, one in details.get("inputs", {}).items() if self._room(name) == "worlds"]
        trials, total = traces.chosen(folder / "trials.parquet", most)
        told = prompts.register(self.client, worlds[0], trials) if worlds else {}
        for model in models.values():
            self.client.set_logged_model_tags(model, {prompts.LINKED: prompts.linked(told.values())})
        tags = {world: {prompts.LINKED: prompts.linked([some])} for world, some in told.items()}
        traces.write(self.facts["uri"], self.experiment, run, identity, folder, models, tags, details["at"], trials)
        self.client.set_tag(run, TRACES, traces.how_many(len(trials), total, most))
        self.client.set_tag(run, f"{TRACES}.of", identity)

    def _room(self, step: str) -> str:
        return str(self.facts.get("datasets", {}).get(step, ""))

    def _log_files(self, run: str, figures: Mapping[str, Any]) -> None:
        """All figures of a stage as a file, and those by family as a table that MLflow shows."""
        if figures:
            self.client.log_dict(run, dict(figures), "figures.json")
        if table := families(figures):
            self.client.log_dict(run, table, "families.json")
            self.client.set_tag(run, "mlflow.loggedArtifacts", json.dumps([{"path": "families.json", "type": "table"}]))

    def _log_data(self, stage: str, identity: str, figures: Mapping[str, Any]) -> None:
        """Name what a stage made as a dataset of the run, where it made data."""
        if stage not in self.facts.get("datasets", {}):
            return
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = json.dumps({"uri": f"data/{stage}", "artifact": identity})
        data = Dataset(stage, identity, "local", source, profile=json.dumps(dict(handful(figures))))
        context = InputTag("mlflow.data.context", DATASETS[self.facts["datasets"][stage]])
        self.client.log_inputs(self.parent, [DatasetInput(data, [context])])

    def _log_models(self, run: str, details: Mapping[str, Any]) -> None:
        there = {(model.name, model.tags.get("cairn.artifact")) for model in self._models()}
        for name, path in details.get("checkpoints", {}).items():
            if (name, details["identity"]) not in there:  # an event that is told again after a kill
                tags = {"cairn.artifact": details["identity"], "cairn.checkpoint": name, "cairn.key": self.facts["run"]}
                where = {"checkpoint": f"artifact:{details['identity']}/{path}"}  # as `base.path` and `cairn serve` take it
                model = self.client.create_logged_model(self.experiment, name=name, source_run_id=run, tags=tags, params=where)
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
            for name, mean in measured(metrics, model.name):
                if name not in known:
                    self.client.log_metric(self.parent, name, mean, timestamp=at, model_id=model.model_id)
        for name, mean in measured(metrics, "contender"):  # no checkpoint of any run
            self.client.log_metric(self.parent, name, mean, timestamp=at)
        if table := results(metrics):
            self.client.set_tag(self.parent, "mlflow.note.content", f"{self.facts.get('description', '')}\n\n{table}".strip()[:NOTE])

    def _on_closed(self, stage: str, details: Mapping[str, Any]) -> None:
        for name, identity in details["linked"].items():
            self.client.set_tag(self.parent, f"cairn.cached.{name}", identity)
            self._log_data(name, identity, {})
        for run in self._runs.values():
            if self.client.get_run(run).info.status == "RUNNING":
                self.client.set_terminated(run, details["status"])
        if alive(self.state, self.facts["run"]) <= details["others"]:  # else another process goes on with the same run
            self.client.set_terminated(self.parent, details["status"])


def printable_uri(uri: str) -> str:
    """An address without the password that may stand in it."""
    head, at, tail = uri.rpartition("@")
    return f"{head.partition('://')[0]}://...@{tail}" if at else uri
