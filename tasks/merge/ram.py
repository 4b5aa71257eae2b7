"""Reinforced Agent Merging (RAM): what several experts changed is averaged, what one alone changed is added in full.

Paper: "Behavior Knowledge Merge in Reinforced Agentic Models", https://arxiv.org/abs/2601.13572. Reinforcement changes few entries, and
other ones in each agent; a mean over all experts would dilute them. With d_i = theta_i - theta_0, expert i is active in an entry if
|d_i| > epsilon; entry by entry, over the active experts:

    theta = theta_0 + alpha * sum_i w_i b_i d_i / sum_i w_i

b_i = 1, so an entry with one active expert gets its whole change. RAM+ (`plus: true`) makes up for what the mean took from the
shared part: in entries that are expert i's alone, b_i = 1 + r * clip(shared_i / unique_i, 0, a), where shared_i and unique_i count the
entries in which i is active with others and alone. mergekit has the two as `ram` and `ramplus_tl`.

Departures:
1. shared_i and unique_i are counted in each tensor. The paper's body could not be read; the authors' code (ram-main.py of
   xiangchi-yuan/mrl at 2dbd745) counts over the whole model, with a = 1 and r = 0.2 in its README. r = 0.1 and a = 0.2 are mergekit's.
2. Weights per expert, all 1 in the paper, act among the experts that share an entry; a unique entry is added in full whatever the
   weight. Weight 0 leaves an expert out; a negative one takes the opposite of its change, and the divisor sums absolute values.
3. `alpha` is ours: 1 in the paper.
4. Arithmetic in float32, rounded once to the stored dtype; mergekit subtracts in the stored dtype.

Cost: one read of each checkpoint, two passes over each tensor, one more for `plus`; no forward pass.
"""

from __future__ import annotations

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

TITLE = "Reinforced Agent Merging"
PAPER = "https://arxiv.org/abs/2601.13572"
SLUG = ""


class Params(MergeParams):
    """epsilon is in the units of the weights; r and a have none."""

    epsilon: float = Field(1e-5, ge=0, lt=1, description="a change up to this size is none; authors' code and mergekit: 1e-5")
    alpha: float = Field(1.0, gt=0, le=10, description="the one scalar that multiplies the merged change; 1 in the paper")
    plus: bool = Field(False, description="RAM+: strengthen each expert's unique part")
    r: float = Field(0.1, gt=0, le=10, description="RAM+: how much, per unit of shared / unique; mergekit's default")
    a: float = Field(0.2, gt=0, le=10, description="RAM+: the largest shared / unique that counts; mergekit's default")


def check(params: Params) -> None:
    """Refuse settings of RAM+ without RAM+."""
    check_merge(params)
    for key in ("r", "a"):
        given, default = getattr(params, key), Params.model_fields[key].default
        if not params.plus and given != default:
            raise BadInput(f"{key} = {given} does nothing without plus: true. Set that, or leave {key} at {default}.")


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """See `core.room.merge_checkpoints`. With `plus` the report has one column more, unique_boost: what the entries that are the
    expert's alone were multiplied by."""
    check(params)
    return merge_checkpoints("ram", inputs, params, ctx, formula(params))


def formula(params: Params) -> Formula:
    """theta_0 + alpha times the weighted mean over the active experts."""

    def look(tensor: Tensor) -> Look:
        own = params.at(tensor.name)
        said = [{"unique_boost": boost(*counted, own)} for counted in counts(tensor, own.epsilon)] if own.plus else []

        def blend(block: Block) -> Array:
            active, alone = activity(block.changes, tensor.weights, own.epsilon)
            total, mass = np.zeros_like(block.base), np.zeros_like(block.base)
            for index, (change, mine, weight) in enumerate(zip(block.changes, active, tensor.weights, strict=True)):
                np.multiply(change, mine, out=change)
                part = np.float32(weight) * change
                if said:
                    np.multiply(part, np.float32(said[index]["unique_boost"]), out=part, where=alone)
                total += part
                mass += np.float32(abs(weight)) * mine
            np.divide(total, mass, out=total, where=mass > 0)
            total *= np.float32(own.alpha)
            return total

        return Look(blend, said)

    return look


def activity(changes: Sequence[Array], weights: Sequence[float], epsilon: float) -> tuple[list[Array], Array]:
    """(per expert where it is active, where only one is), bool [k] each. changes: per expert, float32 [k]."""
    active = [(np.abs(change) > np.float32(epsilon)) & (weight != 0) for change, weight in zip(changes, weights, strict=True)]
    experts = np.zeros(changes[0].shape, dtype=np.int32)
    for one in active:
        experts += one
    return active, experts == 1


def counts(tensor: Tensor, epsilon: float) -> list[tuple[int, int]]:
    """(shared, unique) entries of each expert."""
    totals = [[0, 0] for _ in tensor.labels]
    for block in tensor.blocks():
        active, alone = activity(block.changes, tensor.weights, epsilon)
        for total, mine in zip(totals, active, strict=True):
            unique = int(np.count_nonzero(mine & alone))
            total[0] += int(np.count_nonzero(mine)) - unique
            total[1] += unique
    return [(shared, unique) for shared, unique in totals]


def boost(shared: int, unique: int, params: Params) -> float:
    """RAM+: what an expert's unique entries are multiplied by; 1 where it has none."""
    return 1 + params.r * min(shared / unique, params.a) if unique else 1.0
