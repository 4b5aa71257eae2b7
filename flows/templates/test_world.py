"""The library proves itself: what `cairn world check` looks at, and one call of each kind worked by hand."""

from __future__ import annotations

import json

from flows.worlds.check import check
from tasks.worlds.api.runtime import World
from tasks.worlds.library.library.world import Library


def test_the_world_is_sound() -> None:
    """Every check of `cairn world check` holds."""
    report = check(Library, size=30, count=30)
    assert report.ok, report.text()


def test_a_renewal_by_hand() -> None:
    """Two weeks are 14 days more and one renewal more, and nothing else changes."""
    world = World.build(Library, 10, 0)
    loan_id, loan = next((key, row) for key, row in world.state.rows("loans") if row["status"] == "out")
    result = world.call("renew_loan", {"loan_id": loan_id})
    assert result.ok and json.loads(result.content) == {"days": loan["days"] + 14}
    assert world.diff().splitlines() == [
        f"- loans {loan_id} days: {loan['days']}",
        f"+ loans {loan_id} days: {loan['days'] + 14}",
        f"- loans {loan_id} renewals: {loan['renewals']}",
        f"+ loans {loan_id} renewals: {loan['renewals'] + 1}",
    ]


def test_what_the_api_refuses() -> None:
    """A refused call says why and changes nothing."""
    world = World.build(Library, 10, 0)
    loan_id = next(key for key, row in world.state.rows("loans") if not row["fee"])
    for name, arguments, says in (
        ("get_loan", {"loan_id": "L0"}, "no loan L0"),
        ("pay_fee", {"loan_id": loan_id}, "no fee is due"),
        ("renew_loan", {"loan_id": loan_id, "weeks": 0}, "at least"),
        ("transfer_to_human", {"reason": "late"}, "must be one of lost, damaged"),
    ):
        result = world.call(name, arguments)
        assert not result.ok and says in result.content and not world.diff()
