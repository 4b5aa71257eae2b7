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
   authors' code floors both, mergekit 0.1 zeroes such a tensor's whole change).
3. `granularity: tensor` (the paper's text) is the default; `row` (the last dimension) is what the authors' code does.
4. Weights per model, all 1 in the paper. Scalars are kept whole, as in the authors' code.
5. Arithmetic in float32, rounded once to the stored dtype; mergekit subtracts in the stored dtype.

Cost: one read of each checkpoint, about four passes over each tensor; no forward pass.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from tasks.context import Context
from tasks.merge import Inputs
from tasks.merge.core.engine import Combine, Combined, Report, merge, write_report
from tasks.merge.core.headers import Array
from tasks.merge.core.plan import make_plan
from tasks.merge.core.selection import middle, middle_rows, share
from tasks.params import BadInput, nearest
from tasks.params import Params as Base

TITLE = "Model Breadcrumbs"
PAPER = "https://arxiv.org/abs/2312.06795"
SLUG = "breadcrumbs"


class Params(Base):
    """keep and trim_top are fractions of a tensor's (or a row's) entries, counted by magnitude."""

    keep: float = Field(0.15, gt=0, le=1, description="fraction kept below the trimmed top; authors' search starts at 0.15")
    trim_top: float = Field(
        0.006, ge=0, lt=1, description="fraction of the largest changes that is removed; authors' search starts at 0.006"
    )
    alpha: float = Field(0.4, gt=0, le=10, description="the one scalar that multiplies the sum; authors' evaluation default")
    granularity: Literal["tensor", "row"] = Field("tensor", description="rank in a tensor (paper) or a row (authors' code)")
    weights: dict[str, float] = Field({}, description="weight of an expert by name; 1 where not named (the paper has none)")
    max_relative_delta: float = Field(
        0.5, gt=0, description="refuse an expert that moved farther, as a share of the base's norm; unrelated models: 1.4"
    )
    max_shard_bytes: int = Field(5_000_000_000, ge=1, description="largest weight file, bytes; a larger tensor stands alone")


def check(params: Params) -> None:
    """Refuse combinations that make no sense: tails that overlap, and masks that remove nothing."""
    if share(params.keep, 1) + share(params.trim_top, 1) > 1:
        raise BadInput(f"breadcrumbs: keep = {params.keep} and trim_top = {params.trim_top} add up to more than 1. Lower one of them.")
    if params.keep == 1:
        raise BadInput(
            "breadcrumbs: keep = 1 with trim_top = 0 removes nothing: this is task arithmetic under another name. "
            "The paper removes 85 to 90 %: keep 0.1 to 0.15."
        )
    for name, weight in params.weights.items():
        if not math.isfinite(weight):
            raise BadInput(f"breadcrumbs: weights.{name} = {weight}: allowed are finite numbers")


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """Merge `inputs.experts` into `ctx.out`/model and describe it in `ctx.out`/report.csv; returns the figures.

    Raises BadInput for checkpoints that do not fit together, non-finite weights, a wrong base and unknown weights.
    """
    check(params)
    plan = make_plan(inputs.base, inputs.experts)
    weights = _weights(params.weights, [expert.label for expert in plan.experts])
    said = {**params.model_dump(include={"keep", "trim_top", "alpha", "granularity"}), "weights": weights}
    report = merge(
        plan,
        combiner(params, list(weights.values())),
        ctx.out / "model",
        metadata={"merge_method": "breadcrumbs", "merge_params": json.dumps(said, sort_keys=True)},
        max_relative_delta=params.max_relative_delta,
        max_shard_bytes=params.max_shard_bytes,
        workers=ctx.threads,
        progress=ctx.progress,
    )
    write_report(ctx.out / "report.csv", report.rows)
    return {**figures(report), "weights": weights, "same_as": equivalents(params)}


def _weights(given: Mapping[str, float], labels: Sequence[str]) -> dict[str, float]:
    for name in given:
        if name not in labels:
            raise BadInput(f"breadcrumbs: weights: no expert {name!r}.{nearest(name, labels)} Experts: {', '.join(labels)}.")
    weights = {label: given.get(label, 1.0) for label in labels}
    if not any(weights.values()):
        raise BadInput(f"breadcrumbs: every weight is 0: the result would be the base. Experts: {', '.join(labels)}.")
    return weights


def combiner(params: Params, weights: Sequence[float]) -> Combine:
    """The formula of this method on one tensor; `weights` in the order of the deltas."""

    def combine(name: str, base: Array, deltas: list[Array]) -> Combined:
        stats = [mask(delta, params) for delta in deltas]
        total = np.zeros_like(base)
        for delta, weight in zip(deltas, weights, strict=True):
            total += np.float32(weight) * delta
        total *= np.float32(params.alpha)
        return Combined(total, stats)

    return combine


def counts(n: int, params: Params) -> tuple[int, int]:
    """(trimmed, kept) of n entries: the top floored, the kept rounded (halves to even), together at most n."""
    trimmed = math.floor(share(params.trim_top, n))
    return trimmed, min(round(share(params.keep, n)), n - trimmed)


def mask(delta: Array, params: Params) -> dict[str, Any]:
    """Zero both tails of a task vector in place and say what was done. delta: float32, any shape; a scalar stays whole."""
    rows = delta.reshape(-1, delta.shape[-1] if params.granularity == "row" and delta.ndim else delta.size)
    if delta.ndim == 0 or not delta.size:
        return _said(np.abs(rows), np.ones(rows.shape, dtype=bool), 0)
    trimmed, kept = counts(rows.shape[1], params)
    magnitudes = np.abs(rows)
    chosen = middle(magnitudes[0], trimmed, kept)[None] if len(rows) == 1 else middle_rows(magnitudes, trimmed, kept)
    rows[~chosen] = 0.0
    return _said(magnitudes, chosen, trimmed * rows.shape[0])


def _said(magnitudes: Array, chosen: Array, trimmed: int) -> dict[str, Any]:
    kept = int(np.count_nonzero(chosen))
    return {
        "kept_n": kept,
        "trimmed_n": trimmed,
        "thr_lo": float(magnitudes.min(where=chosen, initial=np.inf)) if kept else None,
        "thr_hi": float(magnitudes.max(where=chosen, initial=0.0)) if kept else None,
    }


def equivalents(params: Params) -> dict[str, dict[str, float]]:
    """The same setting in the words of the paper, of mergekit and of the authors' code."""
    keep, trimmed = share(params.keep, 1), share(params.trim_top, 1)
    return {
        "paper": {"beta": float(1 - keep - trimmed), "gamma": float(1 - trimmed)},
        "mergekit": {"density": params.keep, "gamma": params.trim_top},
        "authors_code": {"beta": params.keep, "gamma": params.trim_top},
    }


def figures(report: Report) -> dict[str, Any]:
    """What a person wants to see of the report: sizes, and per expert how far it moved and how much of that is left."""
    experts = {}
    for label, norm in report.norms.items():
        rows = [row for row in report.rows if row["model"] == label]
        before, after = (math.sqrt(math.fsum(row[key] ** 2 for row in rows)) for key in ("delta_l2", "masked_l2"))
        entries = sum(row["numel"] for row in rows)
        experts[label] = {
            "relative_delta": norm,
            "delta_l2": before,
            "masked_l2": after,
            "kept_frac": sum(row["kept_n"] for row in rows) / entries if entries else 0.0,
            "trimmed_frac": sum(row["trimmed_n"] for row in rows) / entries if entries else 0.0,
            "unchanged": before == 0,
        }
    return {"tensors": report.tensors, "copied": report.copied, "parameters": report.parameters, "experts": experts}
