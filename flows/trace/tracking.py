"""What MLflow knows of versions and runs, asked when it is needed; MLflow that was never written to is not asked, nor made."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from flows import server_checks
from flows.alias import asking_registry
from tasks.contract.params import BadInput
from tasks.engine.mlflow_run import EXPERIMENT
from tasks.engine.sqlite_files import path_of


class Tracking:
    """MLflow's registry and runs, for reading. Its methods raise NoRegistry when MLflow cannot be reached, BadInput when the
    environment names a server that is none."""

    @cached_property
    def _client(self) -> Any:
        """The client; None where MLflow's own database was never made."""
        uri = os.environ["MLFLOW_TRACKING_URI"]
        if (file := path_of(uri)) and not file.exists():
            return None
        server_checks.mlflow()
        from mlflow import MlflowClient

        return MlflowClient(uri)

    def aliases(self, model: str) -> dict[str, str]:
        """Alias -> version of a registered model; {} for a model that is not registered."""
        if self._client is None:
            return {}
        with asking_registry():
            found = self._client.search_registered_models(filter_string=f"name = '{model}'")
            return {str(alias): str(version) for one in found for alias, version in one.aliases.items()}

    def versions(self, model: str) -> dict[str, Any]:
        """Version -> what the registry says of it, the oldest first."""
        if self._client is None:
            return {}
        with asking_registry():
            found = self._client.search_model_versions(f"name = '{model}'")
            return {str(one.version): one for one in sorted(found, key=lambda one: int(one.version))}

    def runs(self, query: str, most: int = 2) -> list[Any]:
        """Runs of Cairn's experiment that a filter of MLflow's finds, the latest first."""
        if self._client is None:
            return []
        with asking_registry():
            experiment = self._client.get_experiment_by_name(EXPERIMENT)
            return list(self._client.search_runs([experiment.experiment_id], query, max_results=most)) if experiment else []

    def run_of_key(self, key: str) -> dict[str, str]:
        """Where a stage's key was computed: {run: id of the stage's MLflow run, commit, dirty: as the pipeline's run has them}; without
        what is not known."""
        found = self.runs(f"tags.`cairn.key` = '{key}'", 1)
        if not found:
            return {}
        parent = found[0].data.tags.get("mlflow.parentRunId", "")
        tags: Mapping[str, str] = next((one.data.tags for one in self.runs(f"attributes.run_id = '{parent}'", 1)), {})
        about = {"run": str(found[0].info.run_id), "commit": tags.get("cairn.commit", ""), "dirty": tags.get("cairn.dirty", "")}
        return {name: value for name, value in about.items() if value}


def plain(model: str) -> str:
    """A model's name as it may stand in a filter. BadInput for one that MLflow would read as more than a name."""
    if "'" in model or "/" in model:
        raise BadInput(f"promote.model = {model!r}: no name of a registered model")
    return model
