"""The figures of `make bench-environments`, at a size that takes a second.

By hand: a step of 256 episodes that takes 1 ms is 256,000 steps a second, and half as many once half of them are over.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra import bench, bench_environments
from infra.bench_environments import figures, main, steps_a_second, variations
from tasks.environments import Steps, frozen


class Timed:
    """An environment whose steps take as long as is said; half of its episodes end with the first of two steps."""

    actions, limit = 2, 2

    def __init__(self, clock: list[int]) -> None:
        self.clock = clock

    def reset(self, seeds: Any) -> Any:
        self.left = [0.5, 0]
        return np.zeros(len(seeds))

    def step(self, actions: Any) -> Steps:
        self.clock[0] += 1_000_000
        n = len(actions)
        ended = np.arange(n) < n * self.left.pop(0)
        return Steps(np.zeros(n), np.zeros(n), ended, np.zeros(n, dtype=bool), np.zeros(n, dtype=int))


def test_steps_a_second_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0]
    monkeypatch.setattr("infra.bench_environments.time.process_time_ns", lambda: clock[0])
    assert steps_a_second(Timed(clock), 256, 3) == pytest.approx((256 + 128) / 0.002)  # type: ignore[arg-type]


def test_every_environment_has_its_figures() -> None:
    names = [label for label, _ in variations()]
    assert {label.partition(",")[0] for label in names} == set(frozen.kinds()) and len(set(names)) == len(names)
    for label, made in variations():
        found = dict(figures(made, label, 4, 1))
        assert len(found) == 4 and all(value >= 0 for value in found.values())
    slippery = frozen.make("grid", {"moves": "slippery", "options": 2})
    assert figures(slippery, "grid", 2, 1)[-1] == ("grid: no best action is known", 0.0)


def test_it_publishes_and_says_what_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    monkeypatch.setattr(bench_environments, "variations", lambda: [("quick", None), ("slow", None), ("slowest", None)])
    rates = {"quick": 2e6, "slow": 5e5, "slowest": 1e5}
    monkeypatch.setattr(bench_environments, "figures", lambda made, label, *sizes: [(f"{label}: steps a second", rates[label])])
    monkeypatch.setattr("sys.argv", ["bench", "--rounds", "1"])
    assert main() == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == ["missed: slowest", "short of the aim: slow; slowest"]
    assert json.loads((tmp_path / "reports/bench/environments.json").read_text())["figures"]["quick: steps a second"] == 2e6
