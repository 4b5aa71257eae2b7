"""Room sft: a method fine-tunes a checkpoint on kept rows.

The room owns the training loop (`core/loop.py`; its params: `Loop`); a method is what it changes there: `hooks(params, ctx) -> Hooks`.
The loop leaves in `ctx.out`: `model/` (an adapter or a whole checkpoint: `Loop.adapter`) and `curves.csv`, and returns figures (rows,
tokens, final losses). Before a step is taken the mask proof must hold for every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.sft.core.params import Loop as Loop
from tasks.sft.core.params import caps as caps
from tasks.sft.core.params import check as check

INPUTS = ("worlds", "model", "rows")
"""What a step in this room reads: the result of one step of each room named here; model: one that leaves a checkpoint; models: some;
rows: of one step of room filter, or of one of room generate that made rows of tokens."""
READS = ("threads", "instructions", "device", "prompt")
"""Shared settings of params/pipeline.yaml that it reads, beside the seed."""
PLOTS = ({"title": "loss", "file": "curves.csv", "x": "step", "y": ("loss", "validation_loss")},)
"""Curves and bars for `dvc plots show`: files of its artifact, and what DVC draws of them."""


@dataclass(frozen=True)
class Inputs:
    """worlds: folder of frozen worlds (for the system prompt). base: folder with model/. rows: folder with dataset.parquet (marked
    conversations) or with rows.parquet (rows of tokens). unfiltered: train on as many rows as were kept, drawn from all, whatever the
    filter said (the control)."""

    worlds: Path
    base: Path
    rows: Path
    unfiltered: bool = False


def leaves(params: Any, worlds: Sequence[str]) -> list[str]:
    """The checkpoints it leaves: "" is `model/`, a name `<name>/model`. params: of the room's loop if it has one, else the method's."""
    return ["unfiltered", ""] if params.control else [""]
