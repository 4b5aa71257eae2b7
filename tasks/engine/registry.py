"""MLflow's registry: versions of a model, and the alias that points at one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tasks.checkpoints.adapters import is_adapter
from tasks.engine.track import Tracker


def register(tracker: Tracker, name: str, checkpoint: Path, tags: Mapping[str, str], note: str) -> str:
    """Log a checkpoint as a model of this pipeline run and register it; returns the new version.

    A whole one is a transformers model, carries the tokenizer and the chat template, and loads by `models:/<name>@<alias>` with no code
    of ours. Of an adapter the version holds the folder as it is, which PEFT loads onto its base.
    """
    tracker.flush()
    import mlflow

    mlflow.set_tracking_uri(tracker.mlflow.client.tracking_uri)
    model = _adapter(tracker, name, checkpoint) if is_adapter(checkpoint) else _whole(tracker, name, checkpoint)
    client = tracker.mlflow.client
    if not client.search_registered_models(filter_string=f"name = '{name}'"):
        client.create_registered_model(name)
    version = client.create_model_version(
        name,
        source=f"models:/{model}",
        run_id=tracker.mlflow.parent,
        tags=dict(tags),
        description=note,
        model_id=model,
    )
    return str(version.version)


def _adapter(tracker: Tracker, name: str, folder: Path) -> str:
    """Log an adapter's folder; returns the logged model's id."""
    about = tracker.mlflow
    model = about.client.create_logged_model(about.experiment, name, source_run_id=about.parent, model_type="adapter")
    about.client.log_model_artifacts(model.model_id, str(folder))
    about.client.finalize_logged_model(model.model_id, "READY")
    return str(model.model_id)


def _whole(tracker: Tracker, name: str, checkpoint: Path) -> str:
    """Log a whole checkpoint; returns the logged model's id."""
    import mlflow
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(checkpoint, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    mlflow.set_experiment(experiment_id=tracker.mlflow.experiment)
    with mlflow.start_run(run_id=tracker.mlflow.parent):
        logged = mlflow.transformers.log_model(
            transformers_model={"model": model, "tokenizer": tokenizer},
            name=name,
            task="llm/v1/chat",
            pip_requirements=["transformers", "torch"],
        )
    return str(logged.model_id)


def version_with(tracker: Tracker, name: str, tag: str, value: str) -> str | None:
    """The version of a model that carries a tag's value, None when there is none."""
    found = tracker.mlflow.client.search_model_versions(f"name = '{name}' and tags.`{tag}` = '{value}'")
    return str(found[0].version) if found else None


def move_alias(tracker: Tracker, name: str, alias: str, version: str) -> None:
    """Point an alias at a version."""
    tracker.mlflow.client.set_registered_model_alias(name, alias, version)
