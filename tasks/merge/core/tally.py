"""What the report says of each tensor: how far each expert moved, what the method left of it, and where experts disagree."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from tasks.merge.core.headers import Array
from tasks.merge.core.tensors import Block, Tensor

COLUMNS = (
    "tensor",
    "model",
    "numel",
    "weight",
    "base_l2",
    "delta_l2",
    "masked_l2",
    "changed_n",
    "kept_n",
    "trimmed_n",
    "thr_lo",
    "thr_hi",
    "mean_pairwise_cos",
    "sign_conflict_frac",
)
"""Of report.parquet, one row per merged tensor and expert; a method may add columns of its own.

weight: the expert's for this tensor. base_l2, delta_l2, masked_l2: L2 norms of the base's tensor, of the expert's change of it, and
of what the method left of that. changed_n, kept_n: entries that are not 0 in the change, and in what was left of it. trimmed_n:
entries removed for being too large. thr_lo, thr_hi: smallest and largest magnitude that may stay (null: no bound).
mean_pairwise_cos: mean cosine over pairs of whole changes (null when there is no pair of non-zero ones). sign_conflict_frac: of the
entries that two or more masked changes hold, the share on which two of them disagree in sign (0 when there is none)."""


def dot(left: Array, right: Array) -> float:
    """Inner product of two blocks: float32 products, summed pairwise, which the caller adds up in float64."""
    return float(np.add.reduce(np.multiply(left, right)))


class Tally:
    """Sums over the blocks of one tensor, in flat order."""

    def __init__(self, experts: int) -> None:
        self._pairs = list(combinations(range(experts), 2))
        self._base: list[float] = []
        self._squares: list[list[float]] = [[] for _ in range(experts)]
        self._products: list[list[float]] = [[] for _ in self._pairs]
        self._masked: list[list[float]] = [[] for _ in range(experts)]
        self._changed, self._kept = [0] * experts, [0] * experts
        self._shared = self._against = 0

    def before(self, block: Block) -> None:
        """Count a block that the method has not touched."""
        self._base.append(dot(block.base, block.base))
        for index, change in enumerate(block.changes):
            self._squares[index].append(dot(change, change))
            self._changed[index] += int(np.count_nonzero(change != 0))
        for index, (i, j) in enumerate(self._pairs):
            self._products[index].append(dot(block.changes[i], block.changes[j]))

    def after(self, block: Block) -> None:
        """Count what the method left of it."""
        ups = np.zeros(block.base.shape, dtype=np.uint8)
        downs = np.zeros_like(ups)
        for index, change in enumerate(block.changes):
            up, down = change > 0, change < 0
            self._masked[index].append(dot(change, change))
            self._kept[index] += int(np.count_nonzero(up)) + int(np.count_nonzero(down))
            ups += up.view(np.uint8)
            downs += down.view(np.uint8)
        if len(block.changes) > 1:
            self._shared += int(np.count_nonzero((ups + downs) >= 2))
            self._against += int(np.count_nonzero((ups > 0) & (downs > 0)))

    def moved(self, tensor: Tensor) -> tuple[float, list[float]]:
        """Squared norms of base and changes, for the question whether the base is the base; 0 for what is no matrix."""
        if len(tensor.shape) < 2:
            return 0.0, [0.0] * len(self._squares)
        return math.fsum(self._base), [math.fsum(one) for one in self._squares]

    def rows(self, tensor: Tensor, stats: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The report's rows of one tensor."""
        norms = [math.sqrt(math.fsum(one)) for one in self._squares]
        cosines = [
            math.fsum(products) / norms[i] / norms[j]
            for (i, j), products in zip(self._pairs, self._products, strict=True)
            if norms[i] > 0 and norms[j] > 0
        ]
        shared = {
            "tensor": tensor.name,
            "numel": tensor.numel,
            "base_l2": math.sqrt(math.fsum(self._base)),
            "mean_pairwise_cos": math.fsum(cosines) / len(cosines) if cosines else None,
            "sign_conflict_frac": self._against / self._shared if self._shared else 0.0,
        }
        return [
            {
                **shared,
                "model": label,
                "weight": tensor.weights[index],
                "delta_l2": norms[index],
                "masked_l2": math.sqrt(math.fsum(self._masked[index])),
                "changed_n": self._changed[index],
                "kept_n": self._kept[index],
                **(stats[index] if stats else {}),
            }
            for index, label in enumerate(tensor.labels)
        ]


def write_report(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """report.parquet: COLUMNS, then the method's own columns by name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    extra = sorted({key for row in rows for key in row} - set(COLUMNS))
    kinds = {"tensor": pa.string(), "model": pa.string()}
    kinds |= dict.fromkeys(("numel", "changed_n", "kept_n", "trimmed_n"), pa.int64())
    columns = {name: pa.array([row.get(name) for row in rows], kinds.get(name, pa.float64())) for name in (*COLUMNS, *extra)}
    pq.write_table(pa.table(columns), path)
