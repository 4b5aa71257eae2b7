"""Long work in pieces: the same results as a plain loop, and a killed run goes on with the next piece."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from tasks.contract.context import in_order
from tasks.engine.shards import sharded


def test_shards_give_what_a_plain_loop_gives(tmp_path: Path) -> None:
    items = list(range(10))

    def work(shard: Sequence[int]) -> list[int]:
        return [item * item for item in shard]

    assert list(sharded(tmp_path)("squares", work, items, 3)) == list(in_order("squares", work, items, 3))


def test_shards_that_wait_go_side_by_side(tmp_path: Path) -> None:
    """Four shards of which each waits for the others, as many as may be under way; the results come in order."""
    together = threading.Barrier(4, timeout=10)

    def work(shard: Sequence[int]) -> list[int]:
        together.wait()
        return list(shard)

    assert list(sharded(tmp_path, window=4)("x", work, range(8), 1)) == [[item] for item in range(8)]


def test_a_killed_run_goes_on_with_the_next_shard(tmp_path: Path) -> None:
    """The third of five shards fails the first time; the second run asks for shards 3, 4 and 5 alone."""
    asked: list[list[int]] = []

    def work(shard: Sequence[int]) -> list[int]:
        asked.append(list(shard))
        if shard[0] == 4 and len(asked) <= 3:
            raise KeyboardInterrupt
        return list(shard)

    with pytest.raises(KeyboardInterrupt):
        list(sharded(tmp_path)("x", work, range(10), 2))
    asked_before = list(asked)
    assert asked_before == [[0, 1], [2, 3], [4, 5]]
    assert [item for shard in sharded(tmp_path)("x", work, range(10), 2) for item in shard] == list(range(10))
    assert asked[len(asked_before) :] == [[4, 5], [6, 7], [8, 9]]
