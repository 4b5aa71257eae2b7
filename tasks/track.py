"""MLflow, and the only module that knows it: one run per pipeline run, one nested run per stage, checkpoints, the registry.

Everything arrives as events of a run (see `tasks.execute.Plan.watch`). MLflow is imported when the first stage is computed or linked
beside a computed one; a run that finds everything cached never pays for it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from tasks.execute import Plan
from tasks.origin import origin, origin_tags

EXPERIMENT = "cairn"
MODEL_STAGES = {"base": ("base",), "sft": ("sft",), "merge": ("merged",)}
"""stage -> names of the checkpoints it leaves (rl names its own, one per world)"""


class Tracker:
    """A watcher that keeps MLflow up to date. Runs are found again by their key, so several processes and attempts share them."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._lock = Lock()
        self._runs: dict[str, str] = {}
        self._curves: dict[str, list[tuple[str, float, int]]] = {}
        self._linked: dict[str, str] = {}

    def __call__(self, stage: str, event: str, about: Mapping[str, Any]) -> None:
        """Take note of an event."""
        handler = getattr(self, f"_on_{event}", None)
        if handler:
            with self._lock:
                handler(stage, about)

    @cached_property
    def client(self) -> Any:
        """The MLflow client, with the experiment's artifacts under the state root."""
        import os

        from mlflow import MlflowClient

        return MlflowClient(os.environ["MLFLOW_TRACKING_URI"])

    @cached_property
    def experiment(self) -> str:
        """Id of the experiment that holds all runs of this project."""
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found:
            return str(found.experiment_id)
        return str(self.client.create_experiment(EXPERIMENT, artifact_location=str(self.plan.store.state / "mlartifacts")))

    @cached_property
    def parent(self) -> str:
        """Id of this pipeline run's MLflow run, found again by the run's key or created."""
        tags = {"cairn.run": self.plan.run_key, "cairn.profile": self.plan.settings.shared.profile, **_origin(self.plan)}
        return self._find_or_create(f"tags.`cairn.run` = '{self.plan.run_key}'", f"cairn {tags['cairn.profile']}", tags)

    def _find_or_create(self, query: str, name: str, tags: Mapping[str, str]) -> str:
        found = self.client.search_runs([self.experiment], filter_string=query, max_results=1)
        if found:
            self.client.update_run(found[0].info.run_id, status="RUNNING")
            return str(found[0].info.run_id)
        return str(self.client.create_run(self.experiment, run_name=name, tags=dict(tags)).info.run_id)

    # events ----------------------------------------------------------------------------------------------------------

    def _on_started(self, stage: str, about: Mapping[str, Any]) -> None:
        key = about["key"]
        query = f"tags.`cairn.key` = '{key}' and tags.`mlflow.parentRunId` = '{self.parent}'"
        tags = {"mlflow.parentRunId": self.parent, "cairn.key": key, "cairn.stage": stage, "cairn.method": about["method"]}
        run = self._runs[stage] = self._find_or_create(query, f"{stage}: {about['method']}", tags)
        params = self.plan.settings.params(stage).model_dump(mode="json")
        known = self.client.get_run(run).data.params
        from mlflow.entities import Param

        fresh = [Param(name, str(value)[:6000]) for name, value in params.items() if name not in known]
        self.client.log_batch(run, params=fresh)

    def _on_log(self, stage: str, about: Mapping[str, Any]) -> None:
        self._curves.setdefault(stage, []).append((about["name"], about["value"], about["step"]))

    def _on_calls(self, stage: str, about: Mapping[str, Any]) -> None:
        """At once, for who looks at a run that goes on. The step is the second."""
        from mlflow.entities import Metric

        now, step = int(time.time() * 1000), int(about["seconds"])
        figures = [(f"calls/{role}/{name}", value) for role, found in about["roles"].items() for name, value in _numbers(found)]
        metrics = [Metric(_name(name), value, now, step) for name, value in figures]
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(self._runs[stage], metrics=metrics[start : start + 1000])

    def _on_done(self, stage: str, about: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric, RunTag

        run, now = self._runs[stage], int(time.time() * 1000)
        metrics = [Metric(_name(name), value, now, step) for name, value, step in self._curves.pop(stage, [])]
        metrics += [Metric(_name(name), value, now, 0) for name, value in _numbers(about["figures"])]
        metrics.append(Metric("seconds", about["seconds"], now, 0))
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(run, metrics=metrics[start : start + 1000])
        self.client.log_batch(run, tags=[RunTag("cairn.artifact", about["identity"])])
        self._log_models(stage, run, about)
        self.client.set_terminated(run)
        self.client.set_tag(self.parent, f"cairn.artifact.{stage}", about["identity"])

    def _on_cached(self, stage: str, about: Mapping[str, Any]) -> None:
        self._linked[stage] = about["identity"]

    def _log_models(self, stage: str, run: str, about: Mapping[str, Any]) -> None:
        names = MODEL_STAGES.get(stage, ()) if stage != "rl" else [f"rl_{world}" for world in about["figures"]]
        for name in names:
            tags = {"cairn.artifact": about["identity"], "cairn.checkpoint": name, "cairn.key": self.plan.run_key}
            model = self.client.create_logged_model(self.experiment, name=name, source_run_id=run, tags=tags)
            self.client.finalize_logged_model(model.model_id, "READY")
            self._models[name] = model.model_id

    @cached_property
    def _models(self) -> dict[str, str]:
        return {}

    def measured(self, metrics: Mapping[str, Any]) -> None:
        """Give each checkpoint of this run its pass^1 by world, as metrics of its logged model."""
        if "parent" not in self.__dict__:
            return
        for name, model in self._models.items():
            for world, figures in metrics.get("evaluate", {}).get(name, {}).items():
                self.client.log_metric(self.parent, f"{name}.{world}.pass_1", figures["pass_1"]["mean"], model_id=model)

    def close(self, error: BaseException | None) -> None:
        """End the run: links to what was cached, and a status. Does nothing when nothing was computed."""
        if "parent" not in self.__dict__:
            return
        for stage, identity in self._linked.items():
            self.client.set_tag(self.parent, f"cairn.cached.{stage}", identity)
        status = "FINISHED" if error is None else "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        for run in self._runs.values():
            if self.client.get_run(run).info.status == "RUNNING":
                self.client.set_terminated(run, status)
        self.client.set_terminated(self.parent, status)


# --- the registry ----------------------------------------------------------------------------------------------------


def register(tracker: Tracker, name: str, checkpoint: Path, tags: Mapping[str, str], note: str) -> str:
    """Log a checkpoint as a transformers model of this pipeline run and register it; returns the new version.

    The model carries the tokenizer and the chat template, and loads by `models:/<name>@<alias>` with no code of ours.
    """
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


def _origin(plan: Plan) -> dict[str, str]:
    """Where the run came from: code commit, files that differ from it and, inside Prefect, the flow run."""
    found = origin_tags(origin(plan.settings.project))
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if context and context.flow_run:
        found["prefect.flow_run"] = str(context.flow_run.id)
    return found
