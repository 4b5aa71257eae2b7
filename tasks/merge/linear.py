"""Linear: the weighted average of the experts, called a model soup when they are fine-tunings of one base.

Paper: "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing inference time",
https://arxiv.org/abs/2203.05482. With d_i = theta_i - theta_0:

    normalize: true     theta = sum_i w_i theta_i / sum_i w_i = theta_0 + sum_i w_i d_i / sum_i w_i
    normalize: false    theta = sum_i w_i theta_i = theta_0 + (sum_i w_i - 1) theta_0 + sum_i w_i d_i

The base is the common origin and no member of the average. With `normalize: true` only the proportions of the weights count: weights
of 0.1 and 1 for copies of one model give that model back, and one expert alone gives that expert. To weaken experts, use
`task_arithmetic`. With `normalize: false` the base is scaled too: weights that sum to 2 double every parameter.

Departures:
1. Weights per expert, layer and tensor; the paper's uniform soup is the default, where all are 1. Its greedy soup chooses its members
   on held-out data, which a merge does not see: choose them by evaluating, and give 0 to the others.
2. Computed from the changes in float32 and rounded once to the stored dtype: a tensor that no expert changed keeps its bits when the
   weights sum to 1 or are normalized.
3. Weights that cancel out are refused where they are normalized; dividing by their sum would blow the changes up.

Cost: one read of each checkpoint, one pass over each tensor; no forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from tasks.contract.context import Context
from tasks.contract.params import BadInput
from tasks.merge import Inputs
from tasks.merge.core.engine import Formula, Look
from tasks.merge.core.headers import Array
from tasks.merge.core.params import MergeParams, check_merge
from tasks.merge.core.room import merge_checkpoints
from tasks.merge.core.tensors import Block, Tensor

TITLE = "Linear (model soup)"
PAPER = "https://arxiv.org/abs/2203.05482"
SLUG = ""

CANCELLED = 1e-6
"""Weights whose sum is smaller than this share of their absolute sum cancel out. Ours: float32 holds seven digits, so the quotient
would be noise; and 0.1 + 0.2 - 0.3 is not quite 0 in binary."""


class Params(MergeParams):
    """Without any, the plain mean of the experts."""

    normalize: bool = Field(
        True, description="divide by the sum of the weights; false: sum w_i theta_i as it is, which scales the base too"
    )


def check(params: Params) -> None:
    """Refuse whole models added up because nobody gave weights."""
    check_merge(params)
    if not params.normalize and not params.weights:
        raise BadInput(
            "normalize = false without weights: every expert would count 1, so that whole models are added up. "
            "Give weights that sum to 1, or leave normalize at true."
        )


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """Merge the experts; files, figures and errors are those of `core.room.merge_checkpoints`."""
    check(params)
    return merge_checkpoints("linear", inputs, params, ctx, formula(params))


def formula(params: Params) -> Formula:
    """sum_i w_i theta_i, over sum_i w_i if normalized; BadInput, with the tensor's name, where the weights cancel out."""

    def look(tensor: Tensor) -> Look:
        normalize = params.at(tensor.name).normalize
        weights = shares(tensor) if normalize else tensor.weights
        surplus = np.float32(0 if normalize else math.fsum(weights) - 1)

        def blend(block: Block) -> Array:
            total = block.base * surplus if surplus else np.zeros_like(block.base)
            for change, weight in zip(block.changes, weights, strict=True):
                total += np.float32(weight) * change
            return total

        return Look(blend)

    return look


def shares(tensor: Tensor) -> Sequence[float]:
    """The experts' weights for a tensor over their sum."""
    total = math.fsum(tensor.weights)
    if abs(total) <= CANCELLED * math.fsum(map(abs, tensor.weights)):
        given = ", ".join(f"{label} {weight:g}" for label, weight in zip(tensor.labels, tensor.weights, strict=True))
        raise BadInput(
            f"linear: the weights for tensor {tensor.name!r} sum to 0 ({given}) and cannot be normalized. Allowed: any other sum. "
            "To leave a tensor as the base has it: an override with exclude: true."
        )
    return [weight / total for weight in tensor.weights]
