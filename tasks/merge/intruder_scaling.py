"""Intruder scaling: directions that a fine-tuning put on top of the base's own are weakened, to win back what was forgotten.

Paper: "LoRA vs Full Fine-tuning: An Illusion of Equivalence", https://arxiv.org/abs/2410.21228 (v3). For each matrix of the one expert,
with W_t = W_0 + d, the reduced SVDs W_0 = U_0 S_0 V_0^T and W_t = sum_j s_j u_j v_j^T, s_1 largest:

    c_j = max_i |<u_j, U_0[:, i]>|                                      how well the base knows the direction, 0 to 1
    I   = {j <= top_k: c_j < epsilon}                                   the intruders
    W   = W_t + (keep - 1) sum_{j in I} s_j u_j v_j^T

`keep` is the share of an intruder's singular value that stays: 1 leaves everything, 0 removes it. (The docstring of PEFT's
`reduce_intruder_dimension` says that its mitigation_lambda is the part subtracted; its code keeps that part, as here.)

No count without its control: `control_count` is how many intruders Gaussian noise of d's Frobenius norm makes in the same matrix.
And no repair without its own: shrinking the whole change can do better, so run `task_arithmetic` with alpha = keep beside it, and with
the alpha that the figures call `same_norm_alpha`. Where `chance_cos`, about the largest cosine of a random direction, sqrt(2 ln r / m)
for the r columns of U_0 in m dimensions, reaches epsilon, the criterion is blind: the figures count such matrices as `too_small`.

Departures:
1. Whole checkpoints: the paper counts in adapted matrices, PEFT repairs an adapter and truncates the result to its rank. An adapter
   given as the expert is repaired as base + its change, without truncation.
2. Tensors that are not matrices, and those named by `skip` (embeddings, output: far more rows than columns), are the expert's; so
   are matrices that it did not change, which are not counted either.
3. Left singular vectors of the matrix as it is stored, outputs x inputs in most models; layers stored the other way (GPT-2's Conv1D)
   are judged by their other side.
4. The SVD is numpy's, in float32. Its last bits may depend on the number of BLAS threads; on that of the merge's threads they do not.

Cost: three SVDs of each matrix, m n min(m, n) operations each and about ten times the matrix in memory, per thread; no forward pass.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from tasks.contract.context import Context, seed_of
from tasks.contract.params import BadInput
from tasks.merge import Inputs
from tasks.merge.core.engine import Formula, Look
from tasks.merge.core.headers import Array
from tasks.merge.core.params import MergeParams, check_merge
from tasks.merge.core.room import merge_checkpoints
from tasks.merge.core.tally import dot
from tasks.merge.core.tensors import Block, Tensor

TITLE = "Intruder scaling"
PAPER = "https://arxiv.org/abs/2410.21228"
SLUG = "intruder_dimensions"


class Params(MergeParams):
    """Which singular vectors are intruders, and how much of them stays."""

    keep: float = Field(0.75, ge=0, le=1, description="share of an intruder's singular value that stays; PEFT's default")
    epsilon: float = Field(0.5, gt=0, lt=1, description="largest cosine with the base's singular vectors, exclusive; authors' code")
    top_k: int = Field(10, ge=1, description="so many of the largest singular vectors are looked at; authors' code")
    skip: str = Field("embed|lm_head", description="regular expression on names of matrices that are left as the expert has them")


def check(params: Params) -> None:
    """Refuse what repairs nothing, weights, and patterns that are none."""
    check_merge(params)
    if params.keep == 1:
        raise BadInput("keep = 1 leaves every intruder whole: the result would be the expert. Allowed: below 1.")
    if params.weights or any(one.weights for one in params.overrides):
        raise BadInput("weights mean nothing: the one expert is repaired whole. Use task_arithmetic to weaken it.")
    for skip in (params.skip, *(str(one.params["skip"]) for one in params.overrides if "skip" in one.params)):
        try:
            re.compile(skip)
        except re.error as error:
            raise BadInput(f"skip = {skip!r} is no regular expression: {error}") from None


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """See `core.room.merge_checkpoints`; the figures also count intruders and those of the control over all matrices looked at."""
    import pyarrow.parquet as pq

    check(params)
    if len(inputs.experts) != 1:
        given = ", ".join(sorted(inputs.experts)) or "none"
        raise BadInput(f"intruder_scaling: this repairs exactly one expert; given: {given}. Merge them first, then repair the result.")
    figures = merge_checkpoints("intruder_scaling", inputs, params, ctx, formula(params))
    (expert,) = figures["experts"].values()
    rows = [row for row in pq.read_table(ctx.out / "report.parquet").to_pylist() if row.get("intruders") is not None]
    return {
        **figures,
        "matrices": len(rows),
        "too_small": sum(row["chance_cos"] >= params.at(row["tensor"]).epsilon for row in rows),
        "intruders": int(sum(row["intruders"] for row in rows)),
        "control_count": int(sum(row["control_count"] for row in rows)),
        "same_norm_alpha": expert["masked_l2"] / expert["delta_l2"] if expert["delta_l2"] else None,
    }


def formula(params: Params) -> Formula:
    """The expert, its intruders weakened. Report, for matrices that are looked at (else null): intruders; control_count; intruder_s and
    intruder_rank, the largest singular value of an intruder and its place from 1 (null: there is none); least_cos, the smallest c_j;
    chance_cos. masked_l2 is the norm of the repaired change."""

    def look(tensor: Tensor) -> Look:
        own = params.at(tensor.name)
        change = None if len(tensor.shape) != 2 or re.search(own.skip, tensor.name) else tensor.whole(0)
        if change is None or not change.any():
            return Look(lambda block: block.changes[0].copy())
        found, said = _measure(tensor, change, own)
        width = tensor.row

        def blend(block: Block) -> Array:
            (change,) = block.changes
            rows = slice(block.start // width, (block.start + len(change)) // width)
            for left, value, right in zip(found.left.T, found.values, found.right, strict=True):
                change += np.outer(left[rows] * (np.float32(own.keep - 1) * value), right).reshape(-1)
            return change.copy()

        return Look(blend, [said])

    return look


@dataclass(frozen=True)
class Intruders:
    """places: among the singular values, from 0 [q]; left [m, q], values [q], right [q, n]; cosines: c_j of all looked at [k]."""

    places: Array
    left: Array
    values: Array
    right: Array
    cosines: Array


def intruders(basis: Array, matrix: Array, top_k: int, epsilon: float) -> Intruders:
    """basis: left singular vectors of the base's matrix, [m, r]; matrix: the tuned one, [m, n]."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    cosines = np.abs(left[:, :top_k].T @ basis).max(axis=1)
    places = np.flatnonzero(cosines < np.float32(epsilon))
    return Intruders(places, left[:, places], values[places], right[places], cosines)


def _measure(tensor: Tensor, change: Array, params: Params) -> tuple[Intruders, dict[str, Any]]:
    """The intruders of a matrix, and what the report says of them and of the control. change: the expert's, [m, n], not all 0."""
    base = tensor.whole_base()
    basis = np.linalg.svd(base, full_matrices=False)[0]
    found = intruders(basis, base + change, params.top_k, params.epsilon)
    control = intruders(basis, base + noise(tensor.name, change), params.top_k, params.epsilon)
    return found, {
        "intruders": len(found.places),
        "control_count": len(control.places),
        "intruder_s": float(found.values[0]) if len(found.places) else None,
        "intruder_rank": int(found.places[0]) + 1 if len(found.places) else None,
        "least_cos": float(found.cosines.min()),
        "chance_cos": math.sqrt(2 * math.log(basis.shape[1]) / basis.shape[0]),
    }


def noise(name: str, change: Array) -> Array:
    """Gaussian noise of the change's shape and Frobenius norm; the same for a tensor's name on every machine."""
    drawn = np.random.default_rng(seed_of("intruder_scaling", name)).standard_normal(change.shape, dtype=np.float32)
    drawn *= np.float32(math.sqrt(dot(change.reshape(-1), change.reshape(-1)) / dot(drawn.reshape(-1), drawn.reshape(-1))))
    return drawn
