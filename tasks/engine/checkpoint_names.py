"""Checkpoints by name: a folder, an artifact by its identity (from here or from the DVC remote), a registered model, or one of the
Hugging Face hub at a commit.

What is named by identity is checked against it when it arrives, so a remote input is the same bytes everywhere or an error.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tasks.checkpoints.source import COUNTED
from tasks.contract.params import BadInput
from tasks.engine.artifact import Store

_ARTIFACT = re.compile(r"^artifact:(?P<identity>[0-9a-f]{32}\.dir)(?:/(?P<inside>.+))?$")
_SHORT = re.compile(r"^artifact:[0-9a-f]{7,32}(/|$)")
_REGISTERED = re.compile(r"^models:/(?P<name>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[\w.-]+))$")
_HUB = re.compile(r"^hub:(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>\S+))?$")
_COMMIT = re.compile(r"[0-9a-f]{40}")
FORMS = (
    "a folder, artifact:<identity>[/folder], models:/<name>/<version>, models:/<name>@<alias> or hub:<owner>/<name>@<commit, 40 digits>"
)


def checkpoint(text: str, project: Path, store: Store) -> Path:
    """The folder that a source names; relative folders count from the current one. BadInput when it names nothing."""
    check_name(text)
    if found := _ARTIFACT.match(text):
        return _inside(_artifact(found["identity"], project, store), found["inside"] or "", text)
    if found := _REGISTERED.match(text):
        identity = _registered(found["name"], found["version"], found["alias"], text)
        return _inside(_artifact(identity, project, store), "", text)
    if found := _HUB.match(text):
        return _from_hub(found["repo"], found["revision"], text)
    folder = Path(text).expanduser()
    if not folder.is_dir():
        raise BadInput(f"{text!r}: {folder} is not a folder. Allowed: {FORMS}.")
    return folder


def check_name(text: str) -> None:
    """Raise BadInput for a text that cannot name a checkpoint, whatever lies where; a revision of the hub that may move is none."""
    if found := _HUB.match(text):
        if not _COMMIT.fullmatch(found["revision"] or ""):
            said = (
                f"{found['revision']!r} is a branch or a tag" if found["revision"] else "without a revision it is whatever lies there"
            )
            raise BadInput(
                f"{text!r}: {said}, which moves. Pin the commit, hub:{found['repo']}@<40 digits>: the hub shows it under 'Files and "
                f"versions', and `git ls-remote https://huggingface.co/{found['repo']}` prints it."
            )
    elif text.startswith(("artifact:", "models:", "hub:")) and not _ARTIFACT.match(text) and not _REGISTERED.match(text):
        short = " An identity stands whole here; `cairn status --json` prints it so." if _SHORT.match(text) else ""
        raise BadInput(f"{text!r} names no checkpoint. Allowed: {FORMS}.{short}")


def is_path(text: str) -> bool:
    """Whether a source names a place on this machine."""
    return not text.startswith(("artifact:", "models:", "hub:"))


def _from_hub(repo: str, revision: str, text: str) -> Path:
    """The folder of a hub's repository at a commit: from the local cache, else fetched, where the network is allowed."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError

    wanted: dict[str, Any] = {"repo_id": repo, "revision": revision, "allow_patterns": [*COUNTED]}
    try:
        return Path(snapshot_download(**wanted, local_files_only=True))
    except (FileNotFoundError, HFValidationError) as error:
        if isinstance(error, HFValidationError) or constants.is_offline_mode():
            raise BadInput(
                f"{text!r} is not in the local cache ({constants.HF_HUB_CACHE}), and Cairn is offline by default. HF_HUB_OFFLINE=0 "
                "lets this command fetch it; or fetch it elsewhere, and name its folder."
            ) from None
    try:
        return Path(snapshot_download(**wanted))
    except (OSError, ValueError, RuntimeError) as error:  # no such repository, a licence that was not accepted, no network
        raise BadInput(f"{text!r} cannot be fetched: {type(error).__name__}: {str(error).splitlines()[0]}") from None


def _inside(folder: Path, inside: str, text: str) -> Path:
    """A folder of an artifact; without a name the one that holds the model."""
    found = (
        folder / inside if inside else next((path for path in (folder / "model", folder) if (path / "config.json").is_file()), folder)
    )
    if not found.is_dir() or not found.resolve().is_relative_to(folder.resolve()):
        raise BadInput(f"{text!r}: the artifact has no folder {inside!r}")
    return found


def _artifact(identity: str, project: Path, store: Store) -> Path:
    if not store.has(identity):
        _pull(identity, project, store)
    try:
        return store.view(identity)
    except LookupError:
        raise BadInput(f"artifact {identity} is not in the store, and the DVC remote does not have it whole.") from None


def _pull(identity: str, project: Path, store: Store) -> None:
    """Bring an artifact from DVC's remote into the store, which is DVC's cache: its listing first, then the files."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc_data.hashfile.hash_info import HashInfo

    try:
        with Repo(str(project)) as repo:
            repo.cloud.pull([HashInfo("md5", identity)])
            repo.cloud.pull([HashInfo("md5", md5) for md5 in sorted(set((store.files(identity) or {}).values()))])
    except DvcException as error:
        raise BadInput(f"artifact {identity} is not in the store, and DVC cannot fetch it: {error}") from None


def _registered(name: str, version: str | None, alias: str | None, text: str) -> str:
    """The identity that promotion wrote on a registered version."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client: Any = MlflowClient()
    try:
        found = client.get_model_version(name, version) if version else client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        raise BadInput(f"{text!r}: the registry does not know it: {error.message}") from None
    if "cairn.artifact" not in found.tags:
        raise BadInput(f"{text!r}: this version was not registered by Cairn: it has no tag cairn.artifact")
    return str(found.tags["cairn.artifact"])
