"""The figures of `make bench-generate`, at a size that takes seconds."""

from __future__ import annotations

from typing import Any

import pytest

from infra import bench_generate
from infra.bench_generate import FAULTS, accepted, faults, kills, speeds
from infra.stub import running


def test_the_faults_are_thirty_percent() -> None:
    assert sum(FAULTS.values()) == pytest.approx(0.30)


def test_a_set_is_named_by_what_it_holds() -> None:
    """By hand: rows with a vote of 5 or less are left out, and a change of one word is a change of the name."""

    def answer(score: int, reason: str = "x") -> Any:
        return {"content": "draft"}, {"content": f'{{"score": {score}, "reason": "{reason}"}}'}

    assert accepted([answer(6), answer(5)]) == accepted([answer(6), answer(0)]) != accepted([answer(6), answer(6)])
    assert accepted([answer(6)]) != accepted([answer(6, "y")])


def test_every_figure_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_generate, "KILLS", 2)
    monkeypatch.setattr(bench_generate, "LATENCY", 0.02)
    monkeypatch.setattr(bench_generate, "peer", lambda *_: None)
    with running(latency=0.02) as stub:
        figures, clean = speeds(stub, 40, 1)
        figures += faults(stub, 40, clean) + kills(stub, 200, 0, accepted([]))
    found = dict(figures)
    assert len(found) == 2 * 6 + 4 + 4 and found["16 in flight: ideal calls/s"] == 800
    assert all(found[f"{flight} in flight: {side}, calls/s"] > 20 for flight in (16, 64) for side in ("ours", "bare httpx loop"))
    assert found["30 % faults: the same accepted set (must 1)"] == 1
    assert found["2 kills: the same accepted set (must 1)"] == 0, "it was compared with another set, so a difference is seen"
    assert found["2 kills: calls answered twice (must be at most 128)"] <= 128
    assert found["2 kills: answers paid in all, of 400"] == 400 + found["2 kills: calls answered twice (must be at most 128)"]
