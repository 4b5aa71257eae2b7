"""One tensor of a merge as a method sees it: flat, in float32, block by block, the base beside each expert's change.

Blocks are small enough to stay in a core's cache through all the steps of a formula, so a merge needs no more memory for a large
tensor than for a small one. Every pass reads the files anew; they are mapped, and the page cache holds them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tasks.contract.params import BadInput
from tasks.merge.core.headers import Array, Mapped, widen
from tasks.merge.core.selection import step_of

BLOCK = 1 << 15
"""Entries of a block: 128 KiB of float32, so that base, three experts and their masks fit a core's cache of 1 MiB."""


class Values(Protocol):
    """The entries of one tensor of one checkpoint, as float32."""

    def values(self, where: slice | Array) -> Array:
        """Those flat entries (a slice, or indices), in a new array or as a view that must not be written to."""
        ...

    def ahead(self) -> None:
        """It is wanted next."""
        ...


class Source(Protocol):
    """Where an expert's change of one tensor comes from."""

    def change(self, where: slice, base: Array) -> Array:
        """d = theta - base for these flat entries, float32, in a new array; base: the same entries of the base."""
        ...

    def ahead(self) -> None:
        """It is wanted next."""
        ...


@dataclass(frozen=True)
class Stored:
    """A tensor as it lies in a file."""

    mapped: Mapped
    dtype: str

    def values(self, where: slice | Array) -> Array:
        """Those flat entries of the file, widened to float32."""
        return widen(self.mapped.flat[where], self.dtype)

    def ahead(self) -> None:
        """Ask the system to read the mapped pages soon."""
        self.mapped.ahead()


@dataclass(frozen=True)
class Full:
    """A whole tensor of an expert; the change is what it differs from the base by."""

    stored: Values

    def change(self, where: slice, base: Array) -> Array:
        """The expert's entries less the base's, float32, in a new array."""
        return np.subtract(self.stored.values(where), base)

    def ahead(self) -> None:
        """Ask the system to read the expert's pages soon."""
        self.stored.ahead()


@dataclass(frozen=True)
class Block:
    """Entries start .. start + len(base) of a flat tensor. A method may overwrite the changes; what it leaves in them is
    reported as the masked task vectors."""

    start: int
    base: Array
    changes: list[Array]

    @property
    def indices(self) -> slice:
        """Its flat entries."""
        return slice(self.start, self.start + len(self.base))


@dataclass
class Tensor:
    """name, shape; labels: the experts; weights: theirs for this tensor; position: of its layer, 0 (first) to 1 (last)."""

    name: str
    shape: tuple[int, ...]
    base: Values
    labels: Sequence[str]
    sources: Sequence[Source]
    weights: Sequence[float]
    position: float = 0.5

    @property
    def numel(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def row(self) -> int:
        """Entries along the last dimension; a vector is one row, a scalar has one entry."""
        return self.shape[-1] if self.shape else 1

    def blocks(self) -> Iterator[Block]:
        """Base and all changes, in flat order. BadInput, with the tensor's name, for NaN and infinities."""
        for where in self._slices():
            base = self._base(where)
            yield Block(where.start, base, [self._change(index, where, base) for index in range(len(self.sources))])

    def changes(self, expert: int) -> Iterator[Array]:
        """One expert's change, in flat order."""
        for where in self._slices():
            yield self._change(expert, where, self._base(where))

    def magnitudes(self, expert: int) -> Iterator[Array]:
        """Of one expert's change."""
        for change in self.changes(expert):
            yield np.abs(change, out=change)

    def sample(self, expert: int) -> Array:
        """Magnitudes of one expert's change at an even step."""
        where = slice(0, self.numel, step_of(self.numel, self.row))
        return np.abs(self._change(expert, where, self._base(where)))

    def whole(self, expert: int) -> Array:
        """One expert's change in one piece, in its shape."""
        everything = slice(0, self.numel)
        return self._change(expert, everything, self._base(everything)).reshape(self.shape)

    def whole_base(self) -> Array:
        """The base in one piece, in its shape, float32."""
        return self._base(slice(0, self.numel)).reshape(self.shape)

    def _slices(self) -> Iterator[slice]:
        """Whole rows, as many as a block holds; a longer row is a block of its own."""
        size = max(self.row, BLOCK // max(self.row, 1) * self.row)
        for start in range(0, self.numel, max(size, 1)):
            yield slice(start, min(start + size, self.numel))

    def _base(self, where: slice) -> Array:
        return self._finite(self.base.values(where), "base")

    def _change(self, index: int, where: slice, base: Array) -> Array:
        return self._finite(self.sources[index].change(where, base), self.labels[index])

    def _finite(self, values: Array, label: str) -> Array:
        """A sum is finite when all values are, or nearly always: it is quicker to look at than each of them."""
        with np.errstate(over="ignore", invalid="ignore"):
            suspect = not np.isfinite(np.add.reduce(values, axis=None))
        if suspect and not np.isfinite(values).all():
            raise BadInput(f"{label}: tensor {self.name!r} holds NaN or infinity")
        return values
