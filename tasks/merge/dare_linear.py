"""DARE: drop most entries of every task vector at random, rescale the rest, add what is left to the base.

Paper: "Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free Lunch",
https://arxiv.org/abs/2311.03099. With d_i = theta_i - theta_0 and m_i ~ Bernoulli(keep), entry by entry:

    theta = theta_0 + alpha * sum_i w_i d'_i,    d'_i = m_i d_i / keep

The paper drops with p = 1 - keep and rescales by 1 / (1 - p); mergekit's density is keep. In expectation this is task arithmetic.

Departures:
1. `rescale: inverse` is the paper's. `l1` is mergekit's: the masked tensor gets the L1 norm that it had before, which equals the
   paper's in expectation only. `none` leaves the rest as it is.
2. Masks come from the run's seed, the expert's name, the tensor's name and the flat index, so that they depend on nothing else;
   mergekit seeds one generator for the whole merge.
3. Weights per expert, all 1 in the paper's sum.
4. Arithmetic in float32, rounded once to the stored dtype; mergekit subtracts in the stored dtype.

Cost: one read of each checkpoint, about two passes over each tensor, one more for `l1`; no forward pass.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tasks.contract.context import Context
from tasks.contract.params import BadInput
from tasks.merge import Inputs
from tasks.merge.core.blends import weighted_sum
from tasks.merge.core.engine import Formula, Look
from tasks.merge.core.noise import RandomMask
from tasks.merge.core.params import MergeParams, check_merge
from tasks.merge.core.rescale import Rescale
from tasks.merge.core.room import merge_checkpoints
from tasks.merge.core.tensors import Tensor

TITLE = "DARE"
PAPER = "https://arxiv.org/abs/2311.03099"
SLUG = ""


class Params(MergeParams):
    """keep is the probability that an entry stays: 1 - the paper's drop rate."""

    keep: float = Field(0.1, gt=0, le=1, description="probability that an entry stays; the paper's abstract drops 90 % and more")
    alpha: float = Field(1.0, gt=0, le=10, description="the one scalar that multiplies the sum; 1 adds the changes in full")
    rescale: Rescale = Field("inverse", description="what stays is divided by keep (paper), gets its L1 norm back, or stays as it is")


def check(params: Params) -> None:
    """Refuse a mask that drops nothing."""
    check_merge(params)
    if params.keep == 1:
        raise BadInput("keep = 1 drops nothing: this is task arithmetic under another name. Allowed: 0 < keep < 1.")


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """See `core.room.merge_checkpoints`. The report has one column more, rescale: what the kept entries were multiplied by."""
    check(params)
    return merge_checkpoints("dare_linear", inputs, params, ctx, formula(params, ctx.seed))


def formula(params: Params, seed: int = 0) -> Formula:
    """theta_0 + alpha sum_i w_i d'_i, with the masks of this seed."""

    def look(tensor: Tensor) -> Look:
        own = params.at(tensor.name)
        masks = [RandomMask(tensor, expert, seed, own.keep, own.rescale) for expert in range(len(tensor.labels))]
        return weighted_sum(tensor, masks, own.alpha)

    return look
