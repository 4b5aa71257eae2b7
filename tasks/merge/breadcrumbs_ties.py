"""Model Breadcrumbs with sign election: the middle of every task vector, and of it what agrees on a sign.

Paper: "Model Breadcrumbs: Scaling Multi-Task Model Merging with Sparse Masks", https://arxiv.org/abs/2312.06795, for the mask;
TIES-Merging, https://arxiv.org/abs/2306.01708, for the election. The papers do not combine the two; mergekit does, under this name.
With d_i = theta_i - theta_0, m_i = 1 on the ranks (trim_top, trim_top + keep] of |d_i|, largest first, and
s = sign(sum_i w_i m_i d_i), entry by entry:

    theta = theta_0 + alpha * sum_i w_i m_i d_i [sign d_i = s]

`keep` is mergekit's density and `trim_top` its gamma; `breadcrumbs` gives the words of the paper and of its authors' code.

Departures from mergekit's method of this name:
1. `normalize: false` is its default; `true` divides by the agreeing experts' weights, as TIES does.
2. Counts: keep is rounded, the top is floored, ties are broken by flat index, a scalar is kept whole. mergekit floors both, and trims
   nothing at density 1.
3. Shares that add up to more than 1 are refused; mergekit lowers gamma.
4. `granularity: row` (the last dimension), as in the authors' code, besides `tensor`.
5. Where the votes cancel exactly no sign is elected and nothing is added; mergekit elects + there.
6. Arithmetic in float32, rounded once to the stored dtype; mergekit subtracts in the stored dtype.

keep = 1 with trim_top = 0 is no no-op: nothing is masked, but signs are still elected.

Cost: one read of each checkpoint, about five passes over each tensor; no forward pass.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tasks.contract.context import Context
from tasks.merge import Inputs
from tasks.merge.core.blends import agreeing_part
from tasks.merge.core.engine import Formula, Look
from tasks.merge.core.masks import check_shares, middle_mask
from tasks.merge.core.params import MergeParams, check_merge, variants
from tasks.merge.core.room import merge_checkpoints
from tasks.merge.core.sign_election import Election
from tasks.merge.core.tensors import Tensor

TITLE = "Model Breadcrumbs with sign election"
PAPER = "https://arxiv.org/abs/2312.06795"
SLUG = "breadcrumbs"


class Params(MergeParams):
    """keep and trim_top are fractions of a tensor's (or a row's) entries, counted by magnitude."""

    keep: float = Field(0.15, gt=0, le=1, description="fraction kept below the trimmed top; breadcrumbs' authors start at 0.15")
    trim_top: float = Field(
        0.006, ge=0, lt=1, description="fraction of the largest changes that is removed; breadcrumbs' authors start at 0.006"
    )
    alpha: float = Field(0.4, gt=0, le=10, description="the one scalar that multiplies the sum; breadcrumbs' evaluation default")
    granularity: Literal["tensor", "row"] = Field("tensor", description="rank in a tensor (paper) or a row (authors' code)")
    normalize: bool = Field(False, description="the weighted sum of the agreeing changes (mergekit); true: their mean (TIES)")


def check(params: Params) -> None:
    """Refuse tails that overlap."""
    check_merge(params)
    for where, own in variants(params):
        check_shares(where, own.keep, own.trim_top)


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """See `core.room.merge_checkpoints`. The report has one column more, outvoted_n: kept entries that lost the election."""
    check(params)
    return merge_checkpoints("breadcrumbs_ties", inputs, params, ctx, formula(params))


def formula(params: Params) -> Formula:
    """theta_0 + alpha times the agreeing part of the m_i d_i."""

    def look(tensor: Tensor) -> Look:
        own = params.at(tensor.name)
        rows = own.granularity == "row"
        masks = [middle_mask(tensor, expert, own.keep, own.trim_top, rows) for expert in range(len(tensor.labels))]
        return agreeing_part(masks, Election(tensor.weights, normalize=own.normalize), own.alpha)

    return look
