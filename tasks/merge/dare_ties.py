"""DARE with TIES: drop entries of every task vector at random, rescale the rest, then merge what agrees on a sign.

Paper: "Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free Lunch",
https://arxiv.org/abs/2311.03099, which puts DARE before TIES-Merging, https://arxiv.org/abs/2306.01708. With d_i = theta_i - theta_0,
m_i ~ Bernoulli(keep), d'_i = m_i d_i / keep and s = sign(sum_i w_i d'_i), entry by entry:

    theta = theta_0 + alpha * sum_i w_i d'_i [sign d'_i = s] / sum_i w_i [sign d'_i = s]

The masks are those of `dare_linear` at the same seed.

Departures:
1. Random dropping stands in for TIES' trimming by magnitude; nothing is trimmed besides.
2. `normalize: true` is TIES' disjoint mean. mergekit's dare_ties adds the agreeing changes without the division by default; that is
   `normalize: false`.
3. `rescale: inverse` is the paper's. `l1` is mergekit's: the masked tensor gets the L1 norm that it had before. `none` leaves the
   rest as it is.
4. Masks come from the run's seed, the expert's name, the tensor's name and the flat index; mergekit seeds one generator for the
   whole merge.
5. Where the votes cancel exactly no sign is elected and nothing is added; mergekit elects + there.
6. Weights per expert, all 1 in the papers; see `ties` for negative ones.
7. Arithmetic in float32, rounded once to the stored dtype; mergekit subtracts in the stored dtype.

keep = 1 is no no-op: nothing is dropped, but signs are still elected.

Cost: one read of each checkpoint, about three passes over each tensor, one more for `l1`; no forward pass.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tasks.contract.context import Context
from tasks.merge import Inputs
from tasks.merge.core.blends import agreeing_part
from tasks.merge.core.engine import Formula, Look
from tasks.merge.core.noise import RandomMask
from tasks.merge.core.params import MergeParams, check_merge
from tasks.merge.core.rescale import Rescale
from tasks.merge.core.room import merge_checkpoints
from tasks.merge.core.sign_election import Election
from tasks.merge.core.tensors import Tensor

TITLE = "DARE with TIES"
PAPER = "https://arxiv.org/abs/2311.03099"
SLUG = ""


class Params(MergeParams):
    """keep is the probability that an entry stays: 1 - the paper's drop rate."""

    keep: float = Field(0.1, gt=0, le=1, description="probability that an entry stays; the paper's abstract drops 90 % and more")
    alpha: float = Field(1.0, gt=0, le=10, description="multiplies the merged change; TIES' lambda, 1 where nothing is tuned")
    rescale: Rescale = Field("inverse", description="what stays is divided by keep (paper), gets its L1 norm back, or stays as it is")
    normalize: bool = Field(True, description="the mean of the agreeing changes (TIES); false: their weighted sum")


def check(params: Params) -> None:
    """Refuse weights and overrides that make no sense; every keep and alpha in range does."""
    check_merge(params)


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """See `core.room.merge_checkpoints`. The report has two columns more: rescale, what the kept entries were multiplied by, and
    outvoted_n, how many of them lost the election."""
    check(params)
    return merge_checkpoints("dare_ties", inputs, params, ctx, formula(params, ctx.seed))


def formula(params: Params, seed: int = 0) -> Formula:
    """theta_0 + alpha times the agreeing part of the d'_i, with the masks of this seed."""

    def look(tensor: Tensor) -> Look:
        own = params.at(tensor.name)
        masks = [RandomMask(tensor, expert, seed, own.keep, own.rescale) for expert in range(len(tensor.labels))]
        return agreeing_part(masks, Election(tensor.weights, normalize=own.normalize), own.alpha)

    return look
