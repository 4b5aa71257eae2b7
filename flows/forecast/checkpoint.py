"""The checkpoint that a road begins with, as far as a forecast needs it: its config.json, and its tokenizer where there is one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.forecast.shape import Shape, read
from tasks.contract.params import BadInput
from tasks.engine import methods
from tasks.engine.settings import Settings

CONFIG = "config.json"


@dataclass(frozen=True)
class Checkpoint:
    """shape: of its decoder. folder: where its tokenizer lies, None before there is one. where: the place, for people."""

    shape: Shape
    folder: Path | None
    where: str


def find(settings: Settings, opened: Callable[[str], Path | None]) -> Checkpoint:
    """The base of the road: as its step has left it, else what its method's params name, else what the method says that it builds.

    opened: step -> the folder that it has left, None when it has not. BadInput when nothing says what the checkpoint is like.
    """
    stage = settings.road.entering("base")[0]
    if there := opened(stage):
        return at(there / "model")
    params, method = settings.params(stage), settings.method(stage)
    if place := getattr(params, "PLACE", ""):
        return at(settings.project / Path(getattr(params, place)).expanduser())
    module = methods.load(settings.room(stage), method)
    if hasattr(module, "config"):
        return Checkpoint(read(module.config(params), f"{stage}.{method}"), None, f"what {stage}.{method} builds")
    raise BadInput(
        f"nothing says what the checkpoint of {stage}.method = {method} is like. Let it be made first: `cairn run --to {stage}`."
    )


def at(folder: Path) -> Checkpoint:
    """A checkpoint's folder. BadInput for one without a config.json that can be read."""
    if not (folder / CONFIG).is_file():
        raise BadInput(f"{folder}: no checkpoint, since {CONFIG} is missing. Allowed: a folder as transformers saves it.")
    return Checkpoint(read(config_of(folder), str(folder / CONFIG)), folder, str(folder))


def config_of(folder: Path) -> Mapping[str, Any]:
    """What a checkpoint's config.json says."""
    try:
        said = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder / CONFIG} cannot be read: {error}") from None
    if not isinstance(said, Mapping):
        raise BadInput(f"{folder / CONFIG}: expected a mapping")
    return said
