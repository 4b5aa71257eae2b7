"""The airline's policy as tests: what one write breaks, and the two lists of predicates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.contract.problem import Action
from tasks.worlds.api import conduct
from tasks.worlds.api.state import Row, State
from tasks.worlds.library.airline.data import BAGS, CABINS

WRITE_RULES = ("R2", "R5", "R6", "R7", "R8", "R9", "R10", "R12", "R13")
CLOSED = {"cancel_booking", "change_flight", "change_cabin", "set_bags"}
VOUCHER = {"delayed": 50, "cancelled": 100}
HELD_OUT_RULES = ("R9",)
"""Rules that only test problems turn on."""
HELD_OUT = (frozenset({"cancel_booking", "book_flight"}), frozenset({"change_cabin", "set_bags"}))
"""Pairs of writes that only test problems combine."""


def check(state: State, action: Action, user_id: str) -> dict[str, str]:
    """The rules that one write would break in this state: rule -> reason. An id that does not exist breaks none."""
    arguments = action.arguments
    new = state.get("flights", arguments.get("flight_id", ""))
    found = {}
    if action.name == "book_flight":
        if arguments["user_id"] != user_id:
            found["R2"] = f"{arguments['user_id']} is another account"
    else:
        booking = state.get("bookings", arguments["booking_id"])
        flight = state.get("flights", booking["flight"]) if booking else None
        if booking is None or flight is None:
            return {}
        if booking["user_id"] != user_id:
            found["R2"] = f"booking {arguments['booking_id']} belongs to another account"
        if action.name in CLOSED and booking["status"] != "booked":
            found["R6"] = f"booking {arguments['booking_id']} is {booking['status']}"
        found.update(_of_booking(action, booking, flight, new))
    if new is not None and new["full"]:
        found["R12"] = f"flight {arguments['flight_id']} is full"
    return found


def _of_booking(action: Action, booking: Row, flight: Row, new: Row | None) -> Mapping[str, str]:
    """R5, R7 to R10 and R13: what depends on the booking and its flight."""
    name, arguments, cabin = action.name, action.arguments, booking["cabin"]
    tests: dict[str, tuple[bool, Any]] = {
        "R5": (
            name == "cancel_booking" and booking["hours"] >= 24 and cabin != "business" and not booking["insurance"],
            "made 24 hours ago or more, not in business, not insured",
        ),
        "R7": (name == "change_flight" and cabin == "basic", "a basic booking cannot be moved"),
        "R8": (
            new is not None and (new["origin"], new["destination"]) != (flight["origin"], flight["destination"]),
            "the new flight has another route",
        ),
        "R9": (
            name == "change_cabin" and CABINS.index(arguments["cabin"]) <= CABINS.index(cabin),
            f"{arguments.get('cabin')} is not above {cabin}",
        ),
        "R10": (name == "set_bags" and arguments["bags"] > BAGS[cabin], f"{cabin} has at most {BAGS[cabin]} bags"),
        "R13": (
            name == "give_voucher" and arguments["amount"] != VOUCHER.get(flight["status"]),
            f"the flight was {flight['status']}",
        ),
    }
    return {rule: reason for rule, (broken, reason) in tests.items() if broken}


POLICY = conduct.Policy(
    check,
    WRITE_RULES,
    identified="R1",
    confirmed="R3",
    one_call="R4",
    looked_up={"R11": "get_booking"},
    lean="R15",
    held_out=HELD_OUT,
    held_out_rules=HELD_OUT_RULES,
)
"""The rules of policy.md that a machine can check."""

EVERY_WRITE = ("R1", "R2", "R3", "R4")
GUARDS = {
    "cancel_booking": (*EVERY_WRITE, "R5", "R6"),
    "change_flight": (*EVERY_WRITE, "R6", "R7", "R8", "R12"),
    "change_cabin": (*EVERY_WRITE, "R6", "R9"),
    "set_bags": (*EVERY_WRITE, "R6", "R10"),
    "book_flight": (*EVERY_WRITE, "R12"),
    "give_voucher": (*EVERY_WRITE, "R13"),
}
"""The predicates that judge each write tool (`cairn serve --with-tools`)."""
