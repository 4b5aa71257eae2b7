"""Plain supervised fine-tuning: next-token loss on what the assistant itself said and called, nothing else.

All hooks are at rest, so this is the room's own loop, and the baseline of every other method here. APIGen-MT
(https://arxiv.org/abs/2504.03601, section 4.1) trains its agents in this way on verified trajectories.

Departures:
1. Batches are counted in tokens, and small: for a tiny model the number of optimiser steps is the scarce thing.
2. A row ends at its last trained token; what the human says after it teaches nothing.

Cost: one forward and backward pass over every kept token of the train split and epoch; logits for trained tokens alone.
"""

from __future__ import annotations

from tasks.contract.context import Context
from tasks.contract.params import Params as Base
from tasks.sft.core.hooks import Hooks

TITLE = "Supervised fine-tuning"
PAPER = "https://arxiv.org/abs/2504.03601"
SLUG = ""


class Params(Base):
    """None: all that can be set is the loop's."""


def hooks(params: Params, ctx: Context) -> Hooks:
    """The room's training as it is: no hook changes anything."""
    return Hooks()
