"""Task arithmetic: the weighted sum of all task vectors, times one scalar, added to the base.

Paper: "Editing models with task arithmetic", https://arxiv.org/abs/2212.04089. With d_i = theta_i - theta_0:

    theta = theta_0 + alpha * sum_i w_i d_i

A negative weight takes a skill away again (the paper's negation), weights of 1, 1 and -1 make its analogy c + b - a. Nothing is masked:
this is the method that all masking methods of the room reduce to, and the arm to compare them with.

Departures:
1. A weight per expert, layer and tensor besides the paper's one scalar; all are 1 by default.
2. Arithmetic in float32, rounded once to the stored dtype.

Cost: one read of each checkpoint, one pass over each tensor; no forward pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from tasks.contract.context import Context
from tasks.merge import Inputs
from tasks.merge.core.engine import Formula, Look
from tasks.merge.core.headers import Array
from tasks.merge.core.params import MergeParams, check_merge
from tasks.merge.core.room import merge_checkpoints
from tasks.merge.core.tensors import Block, Tensor

TITLE = "Task arithmetic"
PAPER = "https://arxiv.org/abs/2212.04089"
SLUG = ""


class Params(MergeParams):
    """One scalar; the more task vectors are added up, the smaller it should be."""

    alpha: float = Field(
        0.8, gt=0, le=10, description="the one scalar that multiplies the sum; 0.8: authors' README, for two; search 0.1 to 1"
    )


def check(params: Params) -> None:
    """Refuse weights and overrides that mean nothing; a negative weight is allowed."""
    check_merge(params)


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """Merge the experts; files, figures and errors are those of `core.room.merge_checkpoints`."""
    check(params)
    return merge_checkpoints("task_arithmetic", inputs, params, ctx, formula(params))


def formula(params: Params) -> Formula:
    """theta_0 + alpha sum_i w_i d_i."""

    def look(tensor: Tensor) -> Look:
        alpha = np.float32(params.at(tensor.name).alpha)

        def blend(block: Block) -> Array:
            total = np.zeros_like(block.base)
            for change, weight in zip(block.changes, tensor.weights, strict=True):
                total += np.float32(weight) * change
            total *= alpha
            return total

        return Look(blend)

    return look
