"""TIES-Merging: of every task vector the largest entries, of these the ones that agree on a sign, of those the mean.

Paper: "TIES-Merging: Resolving Interference When Merging Models", https://arxiv.org/abs/2306.01708.
With d_i = theta_i - theta_0, m_i = 1 on the `keep` share of largest |d_i|, and s = sign(sum_i w_i m_i d_i), entry by entry:

    theta = theta_0 + alpha * sum_i w_i m_i d_i [sign d_i = s] / sum_i w_i [m_i and sign d_i = s]

`keep` is the paper's k (a percentage there) and mergekit's density; `alpha` is the paper's and mergekit's lambda.

Departures:
1. Trimmed tensor by tensor, as mergekit does; the paper trims one vector of all parameters. A tensor that moved little keeps its
   share here and would lose it there.
2. Exact ranks, ties broken by flat index; the share is rounded to a count, and a scalar is kept whole.
3. Where the votes cancel exactly no sign is elected and nothing is added; mergekit elects + there.
4. Weights per expert, all 1 in the paper. A negative one votes for, and adds, the opposite of the expert's change; the divisor sums
   their absolute values. `elect: count` lets each expert vote with its sign alone, whatever its weight.
5. Arithmetic in float32, rounded once to the stored dtype; mergekit subtracts in the stored dtype.

keep = 1 is no no-op: nothing is trimmed, but signs are still elected.

Cost: one read of each checkpoint, about four passes over each tensor; no forward pass.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tasks.contract.context import Context
from tasks.merge import Inputs
from tasks.merge.core.blends import agreeing_part
from tasks.merge.core.engine import Formula, Look
from tasks.merge.core.masks import middle_mask
from tasks.merge.core.params import MergeParams, check_merge
from tasks.merge.core.room import merge_checkpoints
from tasks.merge.core.sign_election import Elect, Election
from tasks.merge.core.tensors import Tensor

TITLE = "TIES-Merging"
PAPER = "https://arxiv.org/abs/2306.01708"
SLUG = ""


class Params(MergeParams):
    """keep is a fraction of a tensor's entries, counted by magnitude."""

    keep: float = Field(0.2, gt=0, le=1, description="fraction of the largest changes that is kept; paper: top 20 %")
    alpha: float = Field(1.0, gt=0, le=10, description="multiplies the merged change; the paper's lambda, 1 where nothing is tuned")
    elect: Elect = Field("mass", description="a sign wins by the sum of the weighted changes (paper) or by the number of experts")


def check(params: Params) -> None:
    """Refuse weights and overrides that make no sense; every keep and alpha in range does."""
    check_merge(params)


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """See `core.room.merge_checkpoints`. The report has one column more, outvoted_n: kept entries that lost the election."""
    check(params)
    return merge_checkpoints("ties", inputs, params, ctx, formula(params))


def formula(params: Params) -> Formula:
    """theta_0 + alpha times the disjoint mean of the trimmed changes."""

    def look(tensor: Tensor) -> Look:
        own = params.at(tensor.name)
        masks = [middle_mask(tensor, expert, own.keep) for expert in range(len(tensor.labels))]
        return agreeing_part(masks, Election(tensor.weights, own.elect, normalize=True), own.alpha)

    return look
