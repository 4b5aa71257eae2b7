"""Model Breadcrumbs: add the middle of every task vector to the base, without its many small and its few largest changes.

Paper: "Model Breadcrumbs: Scaling Multi-Task Model Merging with Sparse Masks", https://arxiv.org/abs/2312.06795.
With d_i = theta_i - theta_0 and m_i = 1 on the ranks (trim_top, trim_top + keep] of |d_i|, largest first:

    theta = theta_0 + alpha * sum_i w_i * m_i * d_i

Three conventions name the tails; `keep` and `trim_top` are ours, and the figures of a run print the other two:

    paper            beta = 1 - keep - trim_top, gamma = 1 - trim_top  (percentiles between which entries are kept)
    mergekit         density = keep, gamma = trim_top                  (fractions)
    authors' code    beta = keep, gamma = trim_top                     (fractions, per row)

Departures:
1. Exact ranks with ties broken by flat index, where the paper says percentile: exactly as many entries survive as said.
2. Counts: keep is rounded, the top is floored. So a small tensor of which nothing is trimmed still keeps its share (the
   authors' code and mergekit floor both).
3. `granularity: tensor` (the paper's text) is the default; `row` (the last dimension) is what the authors' code does.
4. Weights per model, all 1 in the paper. Scalars are kept whole, as in the authors' code.
5. Arithmetic in float32, rounded once to the stored dtype; mergekit subtracts in the stored dtype.

Small reinforced specialists of one SFT model, measured on two pairs: keep 0.1 and 0.3 did no worse than 0.9 (within one standard error
of pass^1), task vectors summed at 0.7 to 1 worked, at 1.5 the model collapsed.

Cost: two passes over each tensor, one for the ranks and one for the sum, read block by block; no forward pass.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tasks.contract.context import Context
from tasks.contract.params import BadInput
from tasks.merge import Inputs
from tasks.merge.core.blends import weighted_sum
from tasks.merge.core.engine import Formula, Look
from tasks.merge.core.masks import check_shares, middle_mask
from tasks.merge.core.params import MergeParams, check_merge, variants
from tasks.merge.core.room import merge_checkpoints
from tasks.merge.core.selection import share
from tasks.merge.core.tensors import Tensor

TITLE = "Model Breadcrumbs"
PAPER = "https://arxiv.org/abs/2312.06795"
SLUG = "breadcrumbs"


class Params(MergeParams):
    """keep and trim_top are fractions of a tensor's (or a row's) entries, counted by magnitude."""

    keep: float = Field(0.15, gt=0, le=1, description="fraction kept below the trimmed top; authors' search starts at 0.15")
    trim_top: float = Field(
        0.006, ge=0, lt=1, description="fraction of the largest changes that is removed; authors' search starts at 0.006"
    )
    alpha: float = Field(0.4, gt=0, le=10, description="the one scalar that multiplies the sum; authors' evaluation default")
    granularity: Literal["tensor", "row"] = Field("tensor", description="rank in a tensor (paper) or a row (authors' code)")


def check(params: Params) -> None:
    """Refuse combinations that make no sense: tails that overlap, and masks that remove nothing."""
    check_merge(params)
    everywhere = variants(params)
    for where, own in everywhere:
        check_shares(where, own.keep, own.trim_top)
    if all(own.keep == 1 for _, own in everywhere):
        raise BadInput(
            "keep = 1 with trim_top = 0 removes nothing: this is task arithmetic under another name. "
            "The paper removes 85 to 90 %: keep 0.1 to 0.15."
        )


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """Merge the experts as `core.room.merge_checkpoints` says; the figures also name the setting in the other conventions' words."""
    check(params)
    figures = merge_checkpoints("breadcrumbs", inputs, params, ctx, formula(params))
    return {**figures, "same_as": equivalents(params)}


def formula(params: Params) -> Formula:
    """theta_0 + alpha sum_i w_i m_i d_i."""

    def look(tensor: Tensor) -> Look:
        own = params.at(tensor.name)
        rows = own.granularity == "row"
        masks = [middle_mask(tensor, expert, own.keep, own.trim_top, rows) for expert in range(len(tensor.labels))]
        return weighted_sum(tensor, masks, own.alpha)

    return look


def equivalents(params: Params) -> dict[str, dict[str, float]]:
    """The same setting in the words of the paper, of mergekit and of the authors' code."""
    keep, trimmed = share(params.keep, 1), share(params.trim_top, 1)
    return {
        "paper": {"beta": float(1 - keep - trimmed), "gamma": float(1 - trimmed)},
        "mergekit": {"density": params.keep, "gamma": params.trim_top},
        "authors_code": {"beta": params.keep, "gamma": params.trim_top},
    }
