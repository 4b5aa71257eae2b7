"""Magnitude pruning: of every task vector the largest entries, added to the base.

Paper: the baseline of "Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free Lunch",
https://arxiv.org/abs/2311.03099, which drops at random instead; the name is PEFT's. With d_i = theta_i - theta_0 and m_i = 1 on the
`keep` share of largest |d_i|:

    theta = theta_0 + alpha * sum_i w_i m_i d_i

This is the trim step of TIES without its election, and Model Breadcrumbs without a trimmed top.

Departures:
1. Exact ranks in a tensor, ties broken by flat index; the share is rounded to a count, and a scalar is kept whole.
2. PEFT prunes the factors A and B of an adapter apart; here the change of the weights is formed first, B A for an adapter.
3. `rescale: none` is the baseline. `l1` gives the masked tensor the L1 norm that it had before. `inverse` divides by the share that
   was kept, as DARE does; the largest entries hold more than their share of the norm, so this adds more than was taken away.
4. Weights per expert, all 1 in the paper. Arithmetic in float32, rounded once to the stored dtype.

Cost: one read of each checkpoint, about four passes over each tensor, three more for `l1`; no forward pass.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from pydantic import Field

from tasks.contract.context import Context
from tasks.contract.params import BadInput
from tasks.merge import Inputs
from tasks.merge.core.engine import Formula, Look
from tasks.merge.core.headers import Array
from tasks.merge.core.masks import MiddleMask, middle_counts
from tasks.merge.core.params import MergeParams, check_merge
from tasks.merge.core.rescale import Mask, Rescale, rescaling
from tasks.merge.core.room import merge_checkpoints
from tasks.merge.core.tensors import Block, Tensor

TITLE = "Magnitude pruning"
PAPER = "https://arxiv.org/abs/2311.03099"
SLUG = ""


class Params(MergeParams):
    """keep is a fraction of a tensor's entries, counted by magnitude."""

    keep: float = Field(
        0.2, gt=0, le=1, description="fraction of the largest changes that is kept; TIES' 20 %, the baseline has no default"
    )
    alpha: float = Field(1.0, gt=0, le=10, description="the one scalar that multiplies the sum; 1 adds what is kept in full")
    rescale: Rescale = Field(
        "none", description="what stays is left as it is (the baseline), gets its L1 norm back, or is divided by keep"
    )


def check(params: Params) -> None:
    """Refuse a mask that removes nothing."""
    check_merge(params)
    if params.keep == 1:
        raise BadInput("keep = 1 removes nothing: this is task arithmetic under another name. Allowed: 0 < keep < 1.")


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """See `core.room.merge_checkpoints`. The report has one column more, rescale: what the kept entries were multiplied by."""
    check(params)
    return merge_checkpoints("magnitude_prune", inputs, params, ctx, formula(params))


def formula(params: Params) -> Formula:
    """theta_0 + alpha sum_i w_i m_i d_i."""

    def look(tensor: Tensor) -> Look:
        own = params.at(tensor.name)
        kept = middle_counts(tensor.numel, own.keep)[1] if tensor.shape else 1
        part = kept / tensor.numel if kept else 0.0
        masks = [MiddleMask(tensor, expert, 0, kept) for expert in range(len(tensor.labels))]
        scales = [rescaling(own.rescale, part, tensor, expert, partial(anew, tensor, expert, kept)) for expert in range(len(masks))]

        def blend(block: Block) -> Array:
            total = np.zeros_like(block.base)
            for change, mask, scale, weight in zip(block.changes, masks, scales, tensor.weights, strict=True):
                mask.apply(block.indices, change)
                change *= scale
                total += np.float32(weight) * change
            total *= np.float32(own.alpha)
            return total

        return Look(blend, [{**mask.figures, "rescale": float(scale)} for mask, scale in zip(masks, scales, strict=True)])

    return look


def anew(tensor: Tensor, expert: int, kept: int) -> Mask:
    """The same mask at the first block again, for the pass that takes the norm: a mask goes through the blocks once."""
    return MiddleMask(tensor, expert, 0, kept).apply
