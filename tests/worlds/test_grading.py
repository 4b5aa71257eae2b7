"""The output check, by hand: "5" is not in "order 15", "$1,234.50" says "1234.5", and "Out of stock!" says "out of stock"."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.worlds import Action, ToolResult
from tasks.worlds.grading import called, says, words


@pytest.mark.parametrize(
    ("reply", "output", "said"),
    [
        ("It is $1,234.50.", "1234.5", True),
        ("It is 1234.50", "1,234.5", True),
        ("It costs 25.00.", "25", True),
        ("It costs 25", "25.0", True),
        ("Order W15 costs 15.", "5", False),
        ("Your order W4821.", "4821", False),
        ("Your order W4821.", "w4821", True),
        ("It is out-of-stock!", "out of stock", True),
        ("It is Delivered.", "delivered", True),
        ("It is undelivered.", "delivered", False),
        ("A change of -5 in all", "-5", True),
        ("A change of -5 in all", "5", False),
        ("rooms 1,2,3", "2", True),
        ("10,00 is odd", "1000", False),
        ("nothing", "", False),
    ],
)
def test_says_by_hand(reply: str, output: str, said: bool) -> None:
    assert says(["Hello.", reply], output) is said


@given(st.integers(0, 10**9))
def test_every_form_of_a_number_is_the_same(number: int) -> None:
    forms = {str(number), f"{number}.0", f"{number}.00", f"{number:,}", f"{number:,}.0", f"${number:,}"}
    assert {tuple(words(f"It is {form}.")) for form in forms} == {("it", "is", str(number))}
    assert not says([f"It is {number}7 or 7{number}."], str(number)) or str(number) in {f"{number}7", f"7{number}"}


def test_called_needs_success_and_the_arguments() -> None:
    """25 equals 25.0; further arguments may stand beside the wanted ones."""
    wanted = Action("get", {"n": 25})
    calls = [(Action("get", {"n": 25.0, "m": 1}), ToolResult(True, "")), (Action("get", {"n": 26}), ToolResult(False, ""))]
    assert called(calls, wanted)
    assert not called(calls, Action("get", {"n": 26})) and not called(calls, Action("put", {"n": 25}))
    assert not called([(Action("get", ["n"]), ToolResult(True, ""))], wanted)  # type: ignore[arg-type]
