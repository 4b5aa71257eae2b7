"""Random masks that depend on a seed, an expert's label, a tensor's name and the flat index, and on nothing else.

A counter-based generator: the number of entry k is SplitMix64's output at step k of the tensor's own stream. So a mask is the same for
any number of threads, any order of the experts or the tensors and any size of the blocks, and no state has to be kept or restored.

Cost: about ten integer operations an entry, with 20 bytes of scratch an entry of the block.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.contract.context import seed_of
from tasks.merge.core.headers import Array
from tasks.merge.core.rescale import Rescale, rescaling
from tasks.merge.core.tensors import Tensor

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
"""SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014."""


def stream(seed: int, label: str, name: str) -> np.uint64:
    """The start of the stream of one expert's change of one tensor."""
    return np.uint64(seed_of(seed, "mask", label, name))


def uniforms(start: np.uint64, where: slice) -> Array:
    """Numbers in [0, 1) for these flat entries of a stream, float32 [k]: the 24 high bits of each output, so all are exact."""
    z = np.arange(where.start + 1, where.stop + 1, dtype=np.uint64)
    shifted = np.empty_like(z)
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is meant
        z *= _GAMMA
        z += start
        for shift, factor in ((30, _MIX_1), (27, _MIX_2)):
            np.right_shift(z, np.uint64(shift), out=shifted)
            z ^= shifted
            z *= factor
    np.right_shift(z, np.uint64(31), out=shifted)
    z ^= shifted
    z >>= np.uint64(40)
    drawn = z.astype(np.float32)
    drawn *= np.float32(2.0**-24)
    return drawn


class RandomMask:
    """Each entry of an expert's change stays with probability `keep` (in steps of 2**-24), on its own; what stays is rescaled.
    said: for the report."""

    def __init__(self, tensor: Tensor, expert: int, seed: int, keep: float, rescale: Rescale) -> None:
        self._start, self._keep = stream(seed, tensor.labels[expert], tensor.name), np.float32(keep)
        self._scale = rescaling(rescale, keep, tensor, expert, lambda: self.drop)
        self.figures: dict[str, Any] = {"rescale": float(self._scale)}

    def drop(self, where: slice, change: Array) -> None:
        """Zero the dropped ones of these flat entries, in place; blocks may come in any order and more than once."""
        np.multiply(change, uniforms(self._start, where) < self._keep, out=change)

    def apply(self, where: slice, change: Array) -> None:
        """Drop and rescale, in place."""
        self.drop(where, change)
        change *= self._scale
