"""Backend `local`: a checkpoint in this process plays a role, and the engines with which checkpoints generate, each in its folder."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.contract.client import Client
    from tasks.players.roles import Surroundings

KNOWS_WORLDS = False
"""One checkpoint in memory serves all worlds."""


def player(name: str, config: Mapping[str, Any], surroundings: Surroundings) -> Client:
    """The checkpoint's client of a role, from its configuration; it is loaded at the first question."""
    client = importlib.import_module(*modules(name))
    own = {key: config[key] for key in ("max_tokens", "thinking", "temperature") if key in config}
    folder, dtype = Path(config["path"]), config.get("dtype", "float32")
    made: Client = client.LocalClient(folder, config["identity"], surroundings.device, dtype, artifacts=surroundings.artifacts, **own)
    return made


def modules(role: str) -> tuple[str, ...]:
    """The module of the client, which this one imports by its name: a room whose checkpoints play needs an engine alone."""
    return ("tasks.players.local.client",)
