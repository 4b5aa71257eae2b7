"""Plain supervised fine-tuning: next-token loss on what the assistant itself said and called, nothing else.

The hooks are all at rest, so this is the room's own loop, and the baseline of every other method here. APIGen-MT
(https://arxiv.org/abs/2504.03601, section 4.1) trains its agents in this way on verified trajectories.

Departures:
1. Batches are counted in tokens, and small: for a tiny model the number of optimiser steps is the scarce thing.
2. A row ends at its last trained token; what the human says after it teaches nothing.

Cost: one forward and backward pass over every kept token of the train split and epoch; logits for trained tokens alone.
"""

from __future__ import annotations

from typing import Any

from tasks.contract.context import Context
from tasks.contract.params import Cap
from tasks.sft import Inputs
from tasks.sft.core import loop
from tasks.sft.core.hooks import Hooks

TITLE = "Supervised fine-tuning"
PAPER = "https://arxiv.org/abs/2504.03601"
SLUG = ""


class Params(loop.Training):
    """Only the loop's params."""


def check(params: Params) -> None:
    """Raise BadInput for combinations that make no sense."""
    loop.check(params)


def caps(params: Params) -> tuple[Cap, ...]:
    """The loop's."""
    return loop.caps(params)


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """Fine-tune; leaves model/, curves.csv and dropped.csv; returns counts and losses."""
    return loop.train(inputs, params, ctx, Hooks())
