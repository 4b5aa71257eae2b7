"""Sparse composition: the sparse differences that experts hold are added to the base as they are, without any scaling.

Paper: "Composable Sparse Fine-Tuning for Cross-Lingual Transfer" (LT-SFT), https://arxiv.org/abs/2110.07560. With
d_i = theta_i - theta_0 and m_i = 1 where |d_i| > epsilon:

    theta = theta_0 + sum_i m_i * d_i

Each expert (a task, a language, a tool set) was trained on few entries of the same base; the supports hardly overlap, so any of them
compose. A tensor that is no difference, such as a task's own head, is taken over from one expert: `take: {"^score": task}`; where two
patterns match, the first counts. The other experts' changes of it are left out (the paper's `with_abs=False`).

An expert that changed more than `max_support` of its entries is a dense fine-tuning, and refused: adding those up without scaling is
`task_arithmetic` with alpha 1. The share is that of the whole model, as the paper's selection is (tensors that are taken over or
excluded do not count), and known when all of it has been read; then nothing is left behind.

Departures:
1. Differences are found by comparing whole checkpoints with the base; the paper stores them as indices and values.
2. Weights, all 1 in the paper: -1 takes a difference out again, as its `revert` does. They do not touch tensors taken over.
3. Arithmetic in float32, rounded once to the stored dtype. A tensor is taken over as base + (expert - base), which may differ from the
   expert's in the last bit of the larger of the two.

Cost: one read of each checkpoint, one pass over each tensor; no forward pass.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from tasks.contract.context import Context
from tasks.contract.params import BadInput, nearest
from tasks.merge import Inputs
from tasks.merge.core.engine import Formula, Look
from tasks.merge.core.headers import Array, open_checkpoint
from tasks.merge.core.params import MergeParams, check_merge
from tasks.merge.core.room import merge_checkpoints
from tasks.merge.core.tensors import Block, Tensor

TITLE = "Sparse composition (LT-SFT)"
PAPER = "https://arxiv.org/abs/2110.07560"
SLUG = "lt_sft"


class Params(MergeParams):
    """What counts as a difference, how many of them are sparse, and what is no difference."""

    epsilon: float = Field(1e-7, ge=0, description="smallest magnitude of a difference, exclusive; authors' code")
    max_support: float = Field(
        0.5, gt=0, le=1, description="refuse an expert that changed a larger share of all entries; LT-SFT: 0.01 to 0.08"
    )
    take: dict[str, str] = Field(
        {}, description="regular expression on tensor names -> the one expert they are taken over from, as a whole"
    )


def check(params: Params) -> None:
    """Refuse patterns that are none, limits that differ from tensor to tensor, and a composition that is plain task arithmetic."""
    check_merge(params)
    for pattern in params.take:
        try:
            re.compile(pattern)
        except re.error as error:
            raise BadInput(f"take: {pattern!r} is no regular expression: {error}") from None
    for index, one in enumerate(params.overrides):
        for key in ("max_support", "take"):
            if key in one.params:
                raise BadInput(f"overrides[{index}].params.{key}: this cannot differ from tensor to tensor")
    if params.max_support == 1 and params.epsilon == 0 and not params.take:
        raise BadInput(
            "epsilon = 0 with max_support = 1 adds every change of every expert: this is task_arithmetic with alpha 1. "
            "Use that, or lower max_support."
        )


def check_take(params: Params, labels: Sequence[str], tensors: Sequence[str]) -> None:
    """Refuse experts that are not there and patterns that no tensor matches. labels: the experts' names; tensors: the base's."""
    for pattern, label in params.take.items():
        if label not in labels:
            known = ", ".join(labels)
            raise BadInput(f"sparse_compose: take: {pattern!r}: no expert {label!r}.{nearest(label, labels)} Experts: {known}.")
        if not any(re.search(pattern, name) for name in tensors):
            raise BadInput(f"sparse_compose: take: {pattern!r} matches no tensor, for example not {tensors[0]!r}")


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """Merge the experts as `core.room.merge_checkpoints` says; the figures also name each expert's support, a share of its entries."""
    import pyarrow.parquet as pq

    check(params)
    check_take(params, sorted(inputs.experts), sorted(open_checkpoint("base", inputs.base).tensors))
    figures = merge_checkpoints("sparse_compose", inputs, params, ctx, formula(params))
    report = ctx.out / "report.parquet"
    found = support(pq.read_table(report).to_pylist(), params)
    for label, share in found.items():
        if share > params.max_support:
            shutil.rmtree(ctx.out / "model")
            report.unlink()
            raise BadInput(
                f"sparse_compose: {label}: {share:.1%} of its entries differ from the base's by more than epsilon = {params.epsilon:g} "
                f"(allowed: max_support = {params.max_support:g}). A dense fine-tuning is no sparse difference: use task_arithmetic."
            )
    return {**figures, "support": found}


def support(rows: Iterable[Mapping[str, Any]], params: Params) -> dict[str, float]:
    """Per expert, the share of its entries that are a difference, over all tensors that are merged and not taken over.

    rows: of the report.
    """
    entries: dict[str, int] = {}
    kept: dict[str, int] = {}
    for row in rows:
        if taken_from(params, row["tensor"]) is None:
            entries[row["model"]] = entries.get(row["model"], 0) + row["numel"]
            kept[row["model"]] = kept.get(row["model"], 0) + row["kept_n"]
    return {label: kept[label] / total for label, total in entries.items() if total}


def taken_from(params: Params, name: str) -> str | None:
    """The expert that a tensor is taken over from."""
    return next((label for pattern, label in params.take.items() if re.search(pattern, name)), None)


def formula(params: Params) -> Formula:
    """theta_0 + sum_i w_i m_i d_i, or one expert's tensor. Report: support_overlap, the share of an expert's support that at least one
    other expert changes too (null: it changes nothing, or the tensor is taken over)."""

    def look(tensor: Tensor) -> Look:
        label = taken_from(params, tensor.name)
        return _added(tensor, params.at(tensor.name).epsilon) if label is None else _taken(tensor.labels.index(label))

    return look


def _taken(expert: int) -> Look:
    def blend(block: Block) -> Array:
        for index, change in enumerate(block.changes):
            if index != expert:
                change.fill(0)
        return block.changes[expert].copy()

    return Look(blend)


def _added(tensor: Tensor, epsilon: float) -> Look:
    overlaps = Overlaps(len(tensor.labels))

    def blend(block: Block) -> Array:
        masks = [np.abs(change) > np.float32(epsilon) for change in block.changes]
        overlaps.count(masks)
        total = np.zeros_like(block.base)
        for change, mask, weight in zip(block.changes, masks, tensor.weights, strict=True):
            np.multiply(change, mask, out=change)
            total += np.float32(weight) * change
        return total

    return Look(blend, overlaps.figures)


class Overlaps:
    """How much of each expert's support others share, counted block by block; said: for the report, current after each block."""

    def __init__(self, experts: int) -> None:
        self._own, self._shared = [0] * experts, [0] * experts
        self.figures: list[dict[str, Any]] = [{"support_overlap": None} for _ in range(experts)]

    def count(self, masks: Sequence[Array]) -> None:
        """masks: of the experts, bool [k]."""
        owners = np.zeros(masks[0].shape, dtype=np.uint16)
        for mask in masks:
            owners += mask
        several = owners > 1
        for index, mask in enumerate(masks):
            self._own[index] += int(np.count_nonzero(mask))
            self._shared[index] += int(np.count_nonzero(mask & several))
            if self._own[index]:
                self.figures[index]["support_overlap"] = self._shared[index] / self._own[index]
