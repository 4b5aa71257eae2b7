"""Room decide: a pure rule from evidence to yes or no.

It leaves in `ctx.out`: `decision.json` with decision ("promote" or "refuse"), reason (one sentence), candidate, and one entry
per gate (name, passed, figures, explanation). It plays nothing, reads no registry and looks at no clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

INPUTS = ("model", "evaluate")
"""What a step in this room reads: the result of one step of each room named here; model: one that leaves a checkpoint; models: some."""
PARAMS = ("params/champion.yaml",)
"""Params files of which every key counts."""


@dataclass(frozen=True)
class Inputs:
    """evaluate: folder with trials.parquet and metrics.json. champion: identity of the champion that the candidate met, None when
    there was none. candidate: model name. candidate_id: identity of its artifact. parent: name of the model that it goes on from, if
    any. anchor: identity of the best champion so far, None where that is the champion."""

    evaluate: Path
    champion: str | None
    candidate: str
    candidate_id: str
    parent: str
    anchor: str | None = None
