"""What `cairn serve` is told to serve: its checkpoint folder, and the card by which it chats."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flows import PROJECT, STATE
from flows.alias import asking_registry
from flows.ledger import Ledger
from flows.short_identities import completed
from tasks.checkpoints.adapters import base_of, is_adapter
from tasks.contract.params import BadInput
from tasks.engine import settings
from tasks.engine.artifact import Store
from tasks.engine.checkpoint_names import checkpoint
from tasks.engine.registry_alias import NoRegistry, read_alias, registry_uri
from tasks.serving.endpoint.card import FILE, Behaviour, agent_card

ALIASES = ("champion", "challenger")
_VERSION = re.compile(r"models:/(?P<name>[^/@]+)/(?P<version>\d+)")
_ALIAS = re.compile(r"models:/(?P<name>[^/@]+)@(?P<alias>[\w.-]+)")


@dataclass(frozen=True)
class Named:
    """folder: of the checkpoint. name: for requests. address: of its version in MLflow's registry, "" for what has none. base: where
    the folder holds an adapter, that of the checkpoint which it changes."""

    folder: Path
    name: str
    address: str = ""
    base: Path | None = None


def named(text: str) -> Named:
    """What a text names: champion, challenger, the number of a version, or any name of a checkpoint. A folder goes before an alias or
    a number. BadInput when there is none, or an adapter's base is not at hand."""
    found = _named(text)
    return replace(found, base=_base(found.folder)) if is_adapter(found.folder) else found


def _base(folder: Path) -> Path:
    """Of an adapter: from the store, or from DVC's remote."""
    about = base_of(folder)
    if about is None or not about.artifact:
        raise BadInput(
            f"{folder}: an adapter alone, and it does not say in which artifact its base lies. Serve that one, with "
            f"--adapter NAME={folder}."
        )
    try:
        return checkpoint(f"artifact:{about.artifact}/{about.folder}".rstrip("/."), PROJECT, Store(STATE))
    except BadInput as error:
        raise BadInput(f"{folder}: an adapter, whose base is {about}: {error}") from None


def _named(text: str) -> Named:
    if Path(text).expanduser().is_dir():
        return Named(Path(text).expanduser(), Path(text).expanduser().resolve().name)
    if text in ALIASES or text.isdecimal():
        promote = settings.load(PROJECT).shared.promote
        address = _pinned(f"models:/{promote.model}{'/' if text.isdecimal() else '@'}{text}")
        try:
            return Named(checkpoint(address, PROJECT, Store(STATE)), text if text in ALIASES else promote.model, address)
        except BadInput as error:
            if text in ALIASES and "the registry does not know it" in str(error):
                raise BadInput(_nobody(text, promote.model, promote.ledger)) from None
            raise
    address = _pinned(completed(text, PROJECT, Store(STATE)))
    return Named(checkpoint(address, PROJECT, Store(STATE)), "model", address)


def _pinned(address: str) -> str:
    """With the version that an alias names now, since it may move before the card is read; the rest as it is."""
    if about := _ALIAS.fullmatch(address):
        with suppress(NoRegistry), asking_registry():  # who loads the checkpoint asks again, and says what is wrong
            if version := read_alias(registry_uri(), about["name"], about["alias"], "").version:
                return f"models:/{about['name']}/{version}"
    return address


def _nobody(alias: str, model: str, ledger: str) -> str:
    """What is said where an alias names no version: there never was one, or it was deleted."""
    now = Ledger(STATE, ledger).champion() if alias == ALIASES[0] else None
    if now:
        return (
            f"version {now['version']} is champion of {model} by the ledger, and the registry's alias names none: the version was "
            "deleted there, or the alias taken away. `cairn rollback --to VERSION --why ...` makes another version champion; as long "
            f"as the store has it, that model can be served: cairn serve artifact:{now['identity']}."
        )
    return (
        f"there is no {alias} of {model} yet. `cairn run` trains a candidate and promotes it when its gates hold, `cairn promotions` "
        "shows what was decided; a checkpoint folder can be served at once: cairn serve FOLDER."
    )


def card_of(found: Named) -> Mapping[str, Any]:
    """The agent's card: that of the registered version; else one made of the worlds in data/worlds and the active params, or without
    worlds where there are none. BadInput (ChatRefused) for a checkpoint that writes no conversations."""
    if about := _VERSION.fullmatch(found.address):
        return _registered_card(about)
    worlds = PROJECT / "data/worlds"
    if not worlds.is_dir():
        return agent_card(found.name, found.folder, Behaviour(worlds, {"tools": "full", "policy": "full"}, ""))
    active = settings.load(PROJECT)
    played: Any = active.params(active.road.judged)
    limits = {name: getattr(played, name) for name in ("temperature", "max_turn_tokens") if hasattr(played, name)}
    return agent_card(found.name, found.folder, Behaviour(worlds, active.shared.prompt.model_dump(), "", **limits))


def _registered_card(about: re.Match[str]) -> Mapping[str, Any]:
    import mlflow
    from mlflow.exceptions import MlflowException

    client: Any = mlflow.MlflowClient()
    name, version = about["name"], about["version"]
    found = client.get_model_version(name, version)
    try:
        file = mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{name}/{version}/{FILE}")
    except (MlflowException, OSError) as error:
        raise BadInput(
            f"version {version} of {name} has no {FILE}, so nobody knows its system message: it was registered before versions "
            f"carried one. With the worlds in data/worlds: cairn serve artifact:{found.tags['cairn.artifact']} ({error})"
        ) from None
    card: Mapping[str, Any] = json.loads(Path(file).read_text("utf-8"))
    return card
