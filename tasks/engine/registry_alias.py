"""Where an alias of MLflow's registry points now. It is asked at the beginning of every command, and MLflow takes a second to load: so
without MLflow where the registry is an SQLite file, which it is unless a server is named.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.contract.params import StageFailed
from tasks.engine import sqlite_files

ARTIFACT = "cairn.artifact"
"""The tag of a version that names the artifact which it holds."""


class NoRegistry(StageFailed):
    """The registry cannot be reached or failed: nothing is lost, and what was begun is finished by the next run."""


@dataclass(frozen=True)
class Alias:
    """version: at which it points, "" for none. tags: of that version. expected_there: whether the version that was asked about is in
    the registry."""

    version: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    expected_there: bool = False

    @property
    def identity(self) -> str:
        """The artifact that the version holds; "" for one that Cairn did not register, or that was deleted."""
        return self.tags.get(ARTIFACT, "")


def registry_uri() -> str:
    """Where models are registered."""
    return os.environ.get("MLFLOW_REGISTRY_URI") or os.environ["MLFLOW_TRACKING_URI"]


def read_alias(uri: str, model: str, alias: str, expected: str) -> Alias:
    """Where an alias points. expected: a version of whom to say whether it is there; "" for none. NoRegistry when it cannot be asked,
    or the exceptions of MLflow's client."""
    path = sqlite_files.path_of(uri)
    if path is None:
        return _by_client(uri, model, alias, expected)
    if not path.exists():
        return Alias()
    try:
        database = sqlite_files.opened(path, "rw")
        try:
            return _read(database, model, alias, expected)
        finally:
            database.close()
    except sqlite3.Error as error:
        if "no such table" in str(error):  # nothing was recorded there yet
            return Alias()
        raise NoRegistry(f"the registry {uri} cannot be read ({error})") from None


def _read(database: sqlite3.Connection, model: str, alias: str, expected: str) -> Alias:
    """From the tables of MLflow's SQL store; a test compares it with what MLflow's client says."""
    there = "SELECT version FROM model_versions WHERE name = ? AND version = ? AND current_stage != 'Deleted_Internal'"
    found = database.execute("SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ?", (model, alias)).fetchone()
    known = bool(expected) and database.execute(there, (model, expected)).fetchone() is not None
    if not found:
        return Alias(expected_there=known)
    tags = {}
    if database.execute(there, (model, found[0])).fetchone():
        tags = dict(database.execute("SELECT key, value FROM model_version_tags WHERE name = ? AND version = ?", (model, found[0])))
    return Alias(str(found[0]), tags, known)


def _by_client(uri: str, model: str, alias: str, expected: str) -> Alias:
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    from mlflow import MlflowClient

    client = MlflowClient(registry_uri=uri)
    registered = _or_none(lambda: client.get_registered_model(model))
    version = str((registered.aliases if registered else {}).get(alias) or "")
    there = {one: _or_none(lambda one=one: client.get_model_version(model, one)) for one in {version, expected} if one}
    return Alias(version, dict(there[version].tags) if there.get(version) else {}, there.get(expected) is not None)


def _or_none(question: Any) -> Any:
    """The answer; None for what is not there."""
    from mlflow.exceptions import MlflowException

    try:
        return question()
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
