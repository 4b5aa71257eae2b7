"""Backend `local`: a checkpoint in this process plays a role. The decoder, and the client over it."""

from __future__ import annotations

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
    from tasks.players.local.client import LocalClient

    own = {key: config[key] for key in ("max_tokens", "thinking", "temperature") if key in config}
    return LocalClient(Path(config["path"]), config["identity"], surroundings.device, config.get("dtype", "float32"), **own)
