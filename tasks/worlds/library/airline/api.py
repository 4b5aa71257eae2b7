"""The airline's tools. The API checks that ids exist and nothing else: what may be done with them is the policy's part."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from tasks.worlds.api.state import Row, State
from tasks.worlds.api.tools import Refused, end, read, write
from tasks.worlds.library.airline.data import SURCHARGE

Cabin = Literal["basic", "economy", "business"]


class Tools:
    """The tools of the airline world over its tables."""

    def __init__(self, db: State) -> None:
        self.db = db

    def _row(self, table: str, key: str, what: str) -> Row:
        row = self.db.get(table, key)
        if row is None:
            raise Refused(f"no {what} {key}")
        return row

    @read(produces=("user_id",))
    def find_user(self, name: str, zip: str) -> dict[str, Any]:
        """Find a traveller by full name and zip code.

        Args:
            name: First and last name.
            zip: Zip code of five digits.
        """
        for user_id in self.db.find("users", name=name, zip=zip):
            return {"user_id": user_id}
        raise Refused("no such user")

    @read(produces=("flight_id", "origin", "destination", "status"))
    def get_booking(self, booking_id: str) -> dict[str, Any]:
        """Owner, flight, route, cabin, status, age in hours, insurance, bags and price of a booking.

        Args:
            booking_id: The booking's id, such as B4821.
        """
        booking = self._row("bookings", booking_id, "booking")
        flight = self._row("flights", booking["flight"], "flight")
        return {
            "user_id": booking["user_id"],
            "flight": booking["flight"],
            "route": f"{flight['origin']} {flight['destination']}",
            "cabin": booking["cabin"],
            "status": booking["status"],
            "hours": booking["hours"],
            "insurance": booking["insurance"],
            "bags": booking["bags"],
            "price": booking["price"],
        }

    @read(produces=("amount",), consumes=("flight_id",))
    def get_flight(self, flight_id: str) -> dict[str, Any]:
        """Day and status of a flight: on time, delayed or cancelled.

        Args:
            flight_id: The flight's id, such as F204.
        """
        flight = self._row("flights", flight_id, "flight")
        return {"day": flight["day"], "status": flight["status"]}

    @read(produces=("new_flight_id",))
    def search_flights(self, origin: str, destination: str) -> dict[str, str]:
        """Flights of a route: flight id to day and fare, and whether it is full.

        Args:
            origin: City of departure.
            destination: City of arrival.
        """
        found = self.db.find("flights", origin=origin, destination=destination)
        if not found:
            raise Refused(f"no flights from {origin} to {destination}")
        rows = {flight_id: self._row("flights", flight_id, "flight") for flight_id in found}
        return {key: f"{row['day']} {row['fare']}" + (" full" if row["full"] else "") for key, row in rows.items()}

    @write(consumes=("booking_id", "status"))
    def cancel_booking(self, booking_id: str) -> dict[str, Any]:
        """Cancel a booking and refund its price.

        Args:
            booking_id: The booking's id.
        """
        booking = self._row("bookings", booking_id, "booking")
        self.db.update("bookings", booking_id, status="cancelled")
        return {"refund": booking["price"]}

    @write(consumes=("booking_id", "new_flight_id"))
    def change_flight(self, booking_id: str, flight_id: str) -> dict[str, Any]:
        """Move a booking to another flight.

        Args:
            booking_id: The booking's id.
            flight_id: The new flight.
        """
        booking, flight = self._row("bookings", booking_id, "booking"), self._row("flights", flight_id, "flight")
        price = flight["fare"] + SURCHARGE[booking["cabin"]]
        self.db.update("bookings", booking_id, flight=flight_id, price=price)
        return {"price": price}

    @write(consumes=("booking_id", "status"))
    def change_cabin(self, booking_id: str, cabin: Cabin) -> dict[str, Any]:
        """Put a booking into another cabin.

        Args:
            booking_id: The booking's id.
            cabin: The new cabin.
        """
        booking = self._row("bookings", booking_id, "booking")
        fare = booking["price"] - SURCHARGE[booking["cabin"]]
        self.db.update("bookings", booking_id, cabin=cabin, price=fare + SURCHARGE[cabin])
        return {"ok": True}

    @write(consumes=("booking_id", "status"))
    def set_bags(self, booking_id: str, bags: int) -> dict[str, Any]:
        """Set how many bags a booking has in all.

        Args:
            booking_id: The booking's id.
            bags: Number of bags, 0 or more.
        """
        self._row("bookings", booking_id, "booking")
        if bags < 0:
            raise Refused("bags cannot be negative")
        self.db.update("bookings", booking_id, bags=bags)
        return {"ok": True}

    @write(consumes=("user_id", "new_flight_id"))
    def book_flight(self, user_id: str, flight_id: str, cabin: Cabin) -> dict[str, Any]:
        """Book a flight for a traveller.

        Args:
            user_id: The traveller's id, such as M127.
            flight_id: The flight.
            cabin: The cabin.
        """
        self._row("users", user_id, "user")
        flight = self._row("flights", flight_id, "flight")
        price = flight["fare"] + SURCHARGE[cabin]
        row = {"user_id": user_id, "flight": flight_id, "cabin": cabin, "status": "booked", "hours": 0}
        booking_id = self._new_id(user_id, flight_id, cabin)
        self.db.put("bookings", booking_id, {**row, "insurance": False, "bags": 0, "price": price})
        return {"booking_id": booking_id, "price": price}

    def _new_id(self, *content: str) -> str:
        """An id from what is booked, so that the order of writes does not matter; the next free one when it is taken."""
        number = int.from_bytes(hashlib.blake2b("\x1f".join(content).encode(), digest_size=4).digest(), "big") % 90_000
        while self.db.get("bookings", f"B{10_000 + number}") is not None:
            number = (number + 1) % 90_000
        return f"B{10_000 + number}"

    @write(consumes=("booking_id", "amount"))
    def give_voucher(self, booking_id: str, amount: int) -> dict[str, Any]:
        """Give a voucher for the flight of a booking.

        Args:
            booking_id: The booking's id.
            amount: What the voucher is worth.
        """
        self._row("bookings", booking_id, "booking")
        if self.db.get("vouchers", booking_id) is not None:
            raise Refused(f"booking {booking_id} has a voucher")
        if amount <= 0:
            raise Refused("the amount must be positive")
        self.db.put("vouchers", booking_id, {"amount": amount})
        return {"ok": True}

    @end(consumes=("status",))
    def transfer_to_human(self, reason: Literal["lost_bag", "special_help"]) -> dict[str, Any]:
        """Hand the conversation over to a person, which ends it.

        Args:
            reason: What the traveller needs.
        """
        return {"ok": True}
