"""A formula of the merge room on arrays in memory, without files and without the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.merge.core.engine import Formula, Look
from tasks.merge.core.headers import Array
from tasks.merge.core.tensors import Tensor


@dataclass(frozen=True)
class Held:
    """A base in memory; see `tensors.Values`."""

    flat: Array

    def values(self, where: slice | Array) -> Array:
        """Those entries."""
        return self.flat[where]

    def ahead(self) -> None:
        """It is here already."""


@dataclass(frozen=True)
class Change:
    """An expert's change in memory, given as it is: no rounding of theta - base; see `tensors.Source`."""

    flat: Array

    def change(self, where: slice, base: Array) -> Array:
        """Those entries, in a new array."""
        return self.flat[where].copy()

    def ahead(self) -> None:
        """It is here already."""


def f32(values: Any) -> Array:
    """A float32 array."""
    return np.array(values, dtype=np.float32)


def tensor(
    base: Any,
    changes: Sequence[Any],
    weights: Sequence[float] | None = None,
    name: str = "w",
    shape: tuple[int, ...] | None = None,
    position: float = 0.5,
) -> Tensor:
    """A tensor of experts `a`, `b`, ...; weights: 1 each by default; shape: the base's by default."""
    start = f32(base)
    labels = [chr(ord("a") + index) for index in range(len(changes))]
    sources = [Change(f32(change).reshape(-1)) for change in changes]
    given = [1.0] * len(labels) if weights is None else list(weights)
    return Tensor(name, start.shape if shape is None else shape, Held(start.reshape(-1)), labels, sources, given, position)


def blend(
    formula: Formula,
    base: Any,
    changes: Sequence[Any],
    weights: Sequence[float] | None = None,
    name: str = "w",
    shape: tuple[int, ...] | None = None,
    position: float = 0.5,
) -> tuple[Array, list[Array]]:
    """What a formula adds to the base, and the changes as it left them (masked), each in the tensor's shape.

    base, changes: arrays or nested lists of equal size. name decides which overrides count, position where on a curve it stands.
    """
    subject = tensor(base, changes, weights, name, shape, position)
    return blended(subject, formula(subject))


def blended(subject: Tensor, look: Look) -> tuple[Array, list[Array]]:
    """As `blend`, for a look that is there already."""
    added: list[Array] = []
    left: list[list[Array]] = [[] for _ in subject.labels]
    for block in subject.blocks():
        added.append(look.blend(block))
        for kept, change in zip(left, block.changes, strict=True):
            kept.append(change)
    return np.concatenate(added).reshape(subject.shape), [np.concatenate(kept).reshape(subject.shape) for kept in left]


def stats(
    formula: Formula, base: Any, changes: Sequence[Any], weights: Sequence[float] | None = None, name: str = "w", **about: Any
) -> list[Mapping[str, Any]]:
    """The method's own columns of the report for one tensor, one mapping per expert, after all blocks were blended."""
    subject = tensor(base, changes, weights, name, **about)
    look = formula(subject)
    blended(subject, look)
    return list(look.stats)
