"""Shards in forks: the same answers in the same order, side by side, and what fails says so."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tasks.contract.computed import TOKENS
from tasks.contract.params import BadInput
from tasks.engine import usage
from tasks.engine.forked import Forks, at_once
from tasks.engine.process import ProcessFailed
from tasks.engine.shards import sharded


def slow_square(items: Sequence[int]) -> list[int]:
    time.sleep(0.05 * (items[0] % 3))
    return [os.getpid(), *(item * item for item in items)]


def test_answers_come_in_order_from_other_processes(tmp_path: Path) -> None:
    shards = sharded(tmp_path, Forks(tmp_path / "forks", 2), 4)
    found = list(shards("squares", slow_square, range(7), 2))
    assert [one[1:] for one in found] == [[0, 1], [4, 9], [16, 25], [36]]
    assert len({one[0] for one in found} - {os.getpid()}) == 4
    assert not list((tmp_path / "forks").iterdir())
    again = list(sharded(tmp_path, Forks(tmp_path / "forks", 2), 4)("squares", slow_square, range(7), 2))
    assert again == found, "finished shards are found again, with the process that made them"


def test_what_forks_used_is_their_parents(tmp_path: Path) -> None:
    """Tokens of all together and the memory of the largest; a fork's own counts begin at nothing."""

    def work(items: Sequence[int]) -> int:
        TOKENS["read"] += items[0]
        return len(bytearray(items[0] << 20))

    usage.begin()
    TOKENS["produced"] += 5
    before = usage.peak()
    list(sharded(tmp_path, Forks(tmp_path / "forks", 2), 4)("use", work, [1, 200], 1))
    found = usage.used(1.5)
    usage.begin()
    assert (found["seconds"], found["tokens"]) == (1.5, {"produced": 5, "read": 201})
    assert found["peak"] > 200 << 20 and before > 20 << 20
    assert usage.used(0.0)["tokens"] == {}


def test_no_more_than_the_limit_at_once(tmp_path: Path) -> None:
    def work(items: Sequence[int]) -> int:
        here = tmp_path / "here" / str(items[0])
        here.touch()
        time.sleep(0.1)
        seen = len(list(here.parent.iterdir()))
        here.unlink()
        return seen

    (tmp_path / "here").mkdir()
    seen = list(sharded(tmp_path, Forks(tmp_path / "forks", 2), 4)("count", work, range(6), 1))
    assert max(seen) == 2


@pytest.mark.parametrize(
    ("error", "wanted", "words"),
    [(BadInput("no such world"), BadInput, "^no such world$"), (ValueError("odd"), ProcessFailed, "^ValueError: odd$")],
)
def test_an_error_keeps_its_words(tmp_path: Path, error: Exception, wanted: type[Exception], words: str) -> None:
    def work(items: Sequence[int]) -> int:
        raise error

    with pytest.raises(wanted, match=words):
        list(sharded(tmp_path, Forks(tmp_path / "forks", 2), 4)("bad", work, [1], 1))


def test_a_killed_fork_is_named_and_costs_its_shard_alone(tmp_path: Path) -> None:
    def work(items: Sequence[int]) -> int:
        if items[0] == 1 and not (tmp_path / "once").exists():
            (tmp_path / "once").touch()
            os.kill(os.getpid(), 9)
        return items[0]

    with pytest.raises(ProcessFailed, match=r"was ended by SIGKILL \(out of memory\? `cairn forecast` says which number to lower\)"):
        list(sharded(tmp_path, Forks(tmp_path / "forks", 1), 2)("kill", work, range(3), 1))
    assert (tmp_path / "shards/kill/000000.json").exists()
    assert list(sharded(tmp_path, Forks(tmp_path / "forks", 1), 2)("kill", work, range(3), 1)) == [0, 1, 2]


def test_at_once_divides_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert [at_once(threads, "cpu") for threads in (1, 2, 4, 16)] == [4, 4, 2, 1]
    assert at_once(1, "cuda") == 1
