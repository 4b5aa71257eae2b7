"""Room filter: a method marks rows, and never deletes one.

A method states its `Marks` alone and hands them to the room (`core.room.mark_rows`), which recomputes splits, drops what a stricter
split forbids, counts, stops when nothing is left, and writes. So filters compose: marks of several are one sequence of checks, weights
and masks of one stand beside checks of another.

It leaves in `ctx.out`: `dataset.parquet` (`schemas.DATASET`: every trajectory, its marks, its split by lineage) and `waterfall.csv`.
It returns counts by reason, which add up to the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

INPUTS = ("worlds", "generate", "critique")
"""What a step in this room reads: the result of one step of each room named here; model: one that leaves a checkpoint; models: some."""


@dataclass(frozen=True)
class Inputs:
    """worlds: folder of frozen worlds. generate: folder with trajectories.parquet. critique: folder with critiques.parquet."""

    worlds: Path
    generate: Path
    critique: Path


@dataclass(frozen=True)
class Check:
    """A reason for which rows are dropped. stage: a word for its bar in the waterfall. fails: which of these row indices (those that
    all checks before have left, in order) are dropped."""

    stage: str
    reason: str
    fails: Callable[[Sequence[int]], set[int]]


@dataclass(frozen=True)
class Offered:
    """The rows that a method marks, in the order of the file. splits: of each, recomputed from its lineage. read: (columns of
    TRAJECTORY) -> the rows with these columns, one by one; as often as wanted."""

    splits: Sequence[str]
    read: Callable[..., Iterator[dict[str, Any]]]


@dataclass(frozen=True)
class Marks:
    """What a method says of n rows, in the order of the file.

    checks: made in order; the first that a row fails is its reason, a row that fails none is kept. scores: (n,) in [0, 1], for people.
    weights: (n,) >= 0, of the row in the loss; () is 1 for all (reward-weighted rows: RISE, https://arxiv.org/abs/2407.18219).
    trained_turns: (n,) which of the assistant's turns are learned, or None for all of them; () is None for all (masked turns: EEF,
    https://arxiv.org/abs/2504.13145, AgentRefine, https://arxiv.org/abs/2501.01702).
    """

    checks: Sequence[Check] = ()
    scores: Sequence[float] = ()
    weights: Sequence[float] = ()
    trained_turns: Sequence[Sequence[bool] | None] = field(default=())
