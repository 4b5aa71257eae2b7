"""What hangs on a seed alone: numbers for many episodes at once, and the split of a start.

Counter-based: the numbers of an episode are a hash of its seed, so they are the same whichever episodes are played beside it, on every
machine. The hash is splitmix64's (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014, section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.contract.context import seed_of
from tasks.contract.problem import Split

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

STEP, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
"""splitmix64's constants."""
ALL = (1 << 64) - 1


def numbers(seeds: Sequence[int], count: int, *names: object) -> Array:
    """(n, count) uint64: `count` numbers for each seed, drawn evenly from all there are. names: what for; others give other numbers."""
    start = np.asarray([seed & ALL for seed in seeds], dtype=np.uint64)
    with np.errstate(over="ignore"):
        mixed = _mixed(start ^ np.uint64(_salt(names)))
        return _mixed(mixed[:, None] + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(STEP))


def number(seed: int, place: int, *names: object) -> int:
    """The number at `place` of the row of `numbers` for one seed, without an array: quick where one is asked at a time."""
    return _mixed_one((_mixed_one((seed & ALL) ^ _salt(names)) + (place + 1) * STEP) & ALL)


def below(drawn: Array, limit: int) -> Array:
    """Numbers drawn evenly from 0 .. limit - 1 (int64), of such as `numbers` gives; for limits far below 2^64 as good as even."""
    return (drawn % np.uint64(limit)).astype(np.int64)


def happens(drawn: Array, share: float) -> Array:
    """Whether something happens that does with probability `share`, for each of such numbers as `numbers` gives."""
    return np.asarray((drawn >> np.uint64(11)) < share * 2.0**53)


def split_of(*start: object) -> Split:
    """The split of whatever a start is about: 8 of 10 train, 1 validates, 1 tests. The same start is never in two."""
    place = seed_of("split", *start) % 10
    return "train" if place < 8 else "validation" if place == 8 else "test"


@lru_cache(maxsize=1024)
def _salt(names: tuple[object, ...]) -> int:
    return seed_of(*names)


def _mixed(value: Array) -> Array:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(FIRST)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(SECOND)
    return value ^ (value >> np.uint64(31))


def _mixed_one(value: int) -> int:
    value = ((value ^ (value >> 30)) * FIRST) & ALL
    value = ((value ^ (value >> 27)) * SECOND) & ALL
    return value ^ (value >> 31)
