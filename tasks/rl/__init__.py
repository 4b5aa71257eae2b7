"""The door to rl: a method reinforces a checkpoint in one world by playing it.

The room owns the training loop (`core/`); a method fills its hooks. It leaves in `ctx.out`: `model/` and `curves.csv`, and
returns figures. One call trains one specialist; the stage runs one per world, each cached on its own. For `cairn run --estimate` it may
tell how many conversations it plays: `conversations(params, worlds) -> int`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

READS = ("threads", "device", "prompt")
"""Shared settings of params/pipeline.yaml that it reads, beside the seed."""
ROLES = ("human",)
"""Roles whose players it asks."""
PLOTS = ({"title": "reward, mean of the worlds", "file": "rewards.csv", "x": "step", "y": "mean"},)
"""Curves and bars for `dvc plots show`: files of its artifact, and what DVC draws of them."""
PLAYS = True
"""Its methods play agents: `<step>.agents` in the params chooses a way of acting (`tasks/agents`)."""


@dataclass(frozen=True)
class Inputs:
    """worlds: folder of frozen worlds. sft: folder with model/. world: name of the world to specialise in."""

    worlds: Path
    sft: Path
    world: str
