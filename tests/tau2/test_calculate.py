"""tau2's `calculate` without `eval`. By hand: 2 * ((350 - 122) + (499 - 127)) = 2 * 600 = 1200."""

from __future__ import annotations

import time

import pytest

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
