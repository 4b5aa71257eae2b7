"""The airline's tables, made from a size and a seed: users, bookings, flights, vouchers.

users:    id -> name, zip
bookings: id -> user_id, flight, cabin (basic, economy, business), status (booked, flown, cancelled), hours (since it was made),
          insurance, bags, price
flights:  id -> origin, destination, day, fare, status (on time, delayed, cancelled), full; three a route, on different days, at
          different fares
vouchers: booking id -> amount; empty at the start
"""

from __future__ import annotations

from random import Random
from typing import Any

from tasks.contract.context import seed_of
from tasks.worlds.api.scripts.names import numbers, people
from tasks.worlds.api.state import Tables

CITIES = ("Oslo", "Rome", "Paris", "Berlin", "Madrid", "Vienna")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
CABINS = ("basic", "economy", "business")
SURCHARGE = {"basic": 0, "economy": 30, "business": 200}
"""What a cabin costs on top of the fare; ours."""
BAGS = {"basic": 1, "economy": 2, "business": 3}
"""R10."""
FLIGHTS = 3
"""Flights of a route; ours: enough to compare, few enough for a short answer."""


def tables(size: int, seed: int) -> Tables:
    """The database of `size` users with three or four bookings each."""
    rng = Random(seed_of("airline", size, seed))
    flights = _flights(rng)
    users: dict[str, Any] = {}
    bookings: dict[str, Any] = {}
    ids = iter(numbers(rng, 4 * size, 4))
    for number, (name, zip_code) in zip(numbers(rng, size, 3), people(rng, size), strict=True):
        user_id = f"M{number}"
        users[user_id] = {"name": name, "zip": zip_code}
        for place in range(rng.randint(3, 4)):
            bookings[f"B{next(ids)}"] = _booking(rng, user_id, flights, booked=place < 2)
    return {"users": users, "bookings": bookings, "flights": flights, "vouchers": {}}


def _flights(rng: Random) -> dict[str, Any]:
    routes = [(origin, destination) for origin in CITIES for destination in CITIES if origin != destination]
    ids = iter(numbers(rng, len(routes) * FLIGHTS, 3))
    flights = {}
    for origin, destination in routes:
        full = rng.randrange(FLIGHTS) if rng.random() < 0.5 else -1
        days, fares = sorted(rng.sample(DAYS, FLIGHTS), key=DAYS.index), rng.sample(range(40, 200), FLIGHTS)
        for place, (day, fare) in enumerate(zip(days, fares, strict=True)):
            status = rng.choices(("on time", "delayed", "cancelled"), (2, 1, 1))[0]
            row = {
                "origin": origin,
                "destination": destination,
                "day": day,
                "fare": fare,
                "status": status,
                "full": place == full,
            }
            flights[f"F{next(ids)}"] = row
    return flights


def _booking(rng: Random, user_id: str, flights: dict[str, Any], booked: bool) -> dict[str, Any]:
    flight, cabin = rng.choice(list(flights)), rng.choices(CABINS, (3, 4, 2))[0]
    return {
        "user_id": user_id,
        "flight": flight,
        "cabin": cabin,
        "status": "booked" if booked else rng.choice(("booked", "flown", "cancelled")),
        "hours": rng.randint(1, 23) if rng.random() < 0.4 else rng.randint(24, 400),
        "insurance": rng.random() < 0.3,
        "bags": rng.randint(0, 1),
        "price": flights[flight]["fare"] + SURCHARGE[cabin],
    }
