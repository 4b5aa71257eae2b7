"""The merge engine: streams tensor by tensor, asks the method for its formula, writes the sum and reports what was done.

For one tensor: read base and experts, widen to float32, d_i = theta_i - theta_0, `combine`, theta = theta_0 + delta, round
once to the stored dtype. Integer tensors are copied from the base. Tensors are independent, so any number of threads gives
the same bytes; memory is about threads x (experts + 3) x the largest tensor in float32.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from tasks.merge.core.headers import Array, narrow, read, widen
from tasks.merge.core.plan import Plan
from tasks.merge.core.write import Writer, whole_or_nothing
from tasks.params import BadInput

COLUMNS = (
    "tensor",
    "model",
    "numel",
    "delta_l2",
    "kept_n",
    "trimmed_n",
    "thr_lo",
    "thr_hi",
    "masked_l2",
    "mean_pairwise_cos",
    "sign_conflict_frac",
)
"""Of report.csv, one line per float tensor and expert.

delta_l2, masked_l2: L2 norm of the task vector before and after the method has masked it. kept_n, trimmed_n: entries kept,
and removed as too large. thr_lo, thr_hi: smallest and largest kept magnitude (empty when nothing is kept).
mean_pairwise_cos: mean cosine over pairs of unmasked task vectors (empty when there is no pair of non-zero ones).
sign_conflict_frac: of the entries that two or more masked task vectors change, the share on which two of them disagree in
sign (0 when there is no such entry)."""

_BLOCK = 1 << 16  # elements per partial sum: 0.5 MiB of float64, stays in cache


@dataclass(frozen=True)
class Combined:
    """A method's answer for one tensor.

    delta: float32, the shape of the tensor, to be added to the base. stats: one mapping per expert for the report (keys of
    COLUMNS, or further ones, which become further columns).
    """

    delta: Array
    stats: Sequence[Mapping[str, Any]] = ()


Combine = Callable[[str, Array, list[Array]], Combined]
"""combine(name, base, deltas): the formula of a method on one tensor, all float32 of one shape. It may overwrite the
deltas, and what it leaves in them is reported as the masked task vectors. `name` is for noise that depends on it alone."""


@dataclass
class Report:
    """What was merged. rows: for report.csv. norms: per expert, L2 of its task vector over L2 of the base, matrices only."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    norms: dict[str, float] = field(default_factory=dict)
    tensors: int = 0
    copied: int = 0
    parameters: int = 0


@dataclass(frozen=True)
class _Done:
    name: str
    rows: list[dict[str, Any]]
    base_square: float
    squares: list[float]
    numel: int
    merged: bool


def merge(
    plan: Plan,
    combine: Combine,
    folder: Path,
    *,
    metadata: Mapping[str, str],
    max_relative_delta: float,
    max_shard_bytes: int = 5_000_000_000,
    workers: int = 1,
    progress: Callable[[int, int, str], None] | None = None,
) -> Report:
    """Write the merged checkpoint to `folder` (which must not exist yet) and return the report.

    max_relative_delta: an expert farther from the base than this share of the base's own norm did not start from it.
    Raises BadInput, naming the tensor, for NaN and infinities, and naming the expert for a base that is not its base; then
    nothing is left behind.
    """
    report = Report()
    base_square, squares = 0.0, [0.0] * len(plan.experts)
    with whole_or_nothing(folder) as partial, ThreadPoolExecutor(max_workers=workers) as pool:
        writer = Writer(plan, partial, metadata, max_shard_bytes)
        for done in _in_turn(pool, workers, lambda name: _one(plan, combine, writer, name), plan.names):
            report.rows += done.rows
            report.tensors += 1
            report.copied += not done.merged
            report.parameters += done.numel
            base_square += done.base_square
            squares = [total + new for total, new in zip(squares, done.squares, strict=True)]
            if progress is not None:
                progress(report.tensors, len(plan.names), "tensors")
        for expert, square in zip(plan.experts, squares, strict=True):
            report.norms[expert.label] = math.sqrt(square / base_square) if base_square else 0.0
        _refuse_foreign(report.norms, max_relative_delta)
    return report


def _in_turn(pool: ThreadPoolExecutor, workers: int, work: Callable[[str], _Done], names: Sequence[str]) -> Iterator[_Done]:
    """Results in the order of names, at most `workers` tensors in memory; a failure stops what has not started."""
    waiting = []
    try:
        for name in names:
            waiting.append(pool.submit(work, name))
            if len(waiting) >= workers:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
    finally:
        for future in waiting:
            future.cancel()


def _one(plan: Plan, combine: Combine, writer: Writer, name: str) -> _Done:
    """Merge and write one tensor."""
    sources = plan.sources(name)
    stored = read(sources[0])
    if not sources[0].is_float:
        writer.put(name, stored)
        return _Done(name, [], 0.0, [0.0] * len(plan.experts), sources[0].numel, merged=False)
    base = _finite(widen(stored, sources[0].dtype), "base", name)
    deltas = []
    for expert, source in zip(plan.experts, sources[1:], strict=True):
        theta = _finite(widen(read(source), source.dtype), expert.label, name)
        deltas.append(np.subtract(theta, base, out=theta))
    matrix = base.ndim >= 2
    squares = [dot(delta, delta) for delta in deltas]
    base_square = dot(base, base) if matrix else 0.0
    cosine = _mean_cosine(deltas, squares)
    combined = combine(name, base, deltas)
    rows = _rows(plan, name, deltas, squares, cosine, combined)
    merged = narrow(np.add(base, combined.delta, out=base), sources[0].dtype)
    _finite(widen(merged, sources[0].dtype), "the merged model", name)
    writer.put(name, merged)
    return _Done(name, rows, base_square, squares if matrix else [0.0] * len(deltas), base.size, merged=True)


def _finite(values: Array, label: str, name: str) -> Array:
    if not np.isfinite(values).all():
        bad = int(values.size - np.count_nonzero(np.isfinite(values)))
        raise BadInput(f"{label}: tensor {name!r} has {bad} values that are NaN or infinite (of {values.size})")
    return values


def _refuse_foreign(norms: Mapping[str, float], limit: float) -> None:
    for label, norm in norms.items():
        if norm > limit:
            raise BadInput(
                f"{label}: its weights differ from the base's by {norm:.3g} times the base's own norm (allowed: {limit:g}). "
                "An unrelated checkpoint of the same architecture looks like this: give the one that it was trained from, "
                "or raise max_relative_delta if it truly moved that far."
            )


def dot(left: Array, right: Array) -> float:
    """Inner product of two tensors of one shape in float64, block by block: the same for any number of threads."""
    a, b = left.reshape(-1), right.reshape(-1)
    room = np.empty(min(_BLOCK, a.size), dtype=np.float64)
    partial = []
    for start in range(0, a.size, _BLOCK):
        x, y = a[start : start + _BLOCK], b[start : start + _BLOCK]
        partial.append(float(np.multiply(x, y, out=room[: x.size], dtype=np.float64).sum()))
    return math.fsum(partial)


def _mean_cosine(deltas: Sequence[Array], squares: Sequence[float]) -> float | None:
    cosines = [
        dot(deltas[i], deltas[j]) / math.sqrt(squares[i]) / math.sqrt(squares[j])
        for i, j in combinations(range(len(deltas)), 2)
        if squares[i] > 0 and squares[j] > 0
    ]
    return math.fsum(cosines) / len(cosines) if cosines else None


def _conflicts(masked: Sequence[Array]) -> float:
    """Of the entries that two or more task vectors change, the share on which two of them disagree in sign."""
    if len(masked) < 2:
        return 0.0
    flat = [delta.reshape(-1) for delta in masked]
    shared = against = 0
    for start in range(0, flat[0].size, _BLOCK):
        blocks = [delta[start : start + _BLOCK] for delta in flat]
        ups = np.sum([block > 0 for block in blocks], axis=0, dtype=np.int16)
        downs = np.sum([block < 0 for block in blocks], axis=0, dtype=np.int16)
        shared += int(np.count_nonzero(ups + downs >= 2))
        against += int(np.count_nonzero((ups > 0) & (downs > 0)))
    return against / shared if shared else 0.0


def _rows(
    plan: Plan, name: str, masked: Sequence[Array], squares: Sequence[float], cosine: float | None, combined: Combined
) -> list[dict[str, Any]]:
    conflict = _conflicts(masked)
    stats = combined.stats or [{}] * len(masked)
    return [
        {
            "tensor": name,
            "model": expert.label,
            "numel": delta.size,
            "delta_l2": math.sqrt(square),
            **own,
            "masked_l2": math.sqrt(dot(delta, delta)),
            "mean_pairwise_cos": cosine,
            "sign_conflict_frac": conflict,
        }
        for expert, delta, square, own in zip(plan.experts, masked, squares, stats, strict=True)
    ]


def write_report(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """report.csv: COLUMNS, then the method's own columns; numbers with nine significant digits, None as an empty field."""
    extra = sorted({key for row in rows for key in row} - set(COLUMNS))
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [*COLUMNS, *extra], restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{value:.9g}" if isinstance(value, float) else value for key, value in row.items()})
