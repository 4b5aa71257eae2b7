"""Room base: a method fetches or builds the checkpoint to start from.

It leaves in `ctx.out`: `model/` (a transformers folder: safetensors, JSON and the chat template alone) and `curves.csv`
(step and one column per curve; no times). It returns figures such as the final loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INPUTS = ("worlds",)
"""What a step in this room reads: the result of one step of each room named here; model: one that leaves a checkpoint; models: some."""
READS = ("threads", "device", "prompt")
"""Shared settings of params/pipeline.yaml that it reads, beside the seed."""
PLOTS = ({"title": "loss", "file": "curves.csv", "x": "step", "y": "loss"},)
"""Curves and bars for `dvc plots show`: files of its artifact, and what DVC draws of them."""


@dataclass(frozen=True)
class Inputs:
    """worlds: folder of frozen worlds, whose language the tokenizer may learn (train split only). source: what lies where the params of
    a method say that it reads something from outside (its `PLACE`), a folder or a file; None for a method that does not."""

    worlds: Path
    source: Path | None = None


def leaves(params: Any, worlds: Sequence[str]) -> list[str]:
    """The checkpoints it leaves: "" is `model/`, a name `<name>/model`. params: of the room's loop if it has one, else the method's."""
    return [""]
