"""The airline's problems: from one traveller's rows to a draft with ground truth, in a family or along a walk of tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from tasks.worlds.api.scripts import drafting
from tasks.worlds.api.scripts.drafting import Case, Fits, Maker, Single, Step, call, forbidden, foreign, look_ups, proposer
from tasks.worlds.api.state import State
from tasks.worlds.library.airline.data import BAGS, CABINS, CITIES, SURCHARGE
from tasks.worlds.library.airline.rules import HELD_OUT, HELD_OUT_RULES, VOUCHER
from tasks.worlds.library.airline.user_phrases import PHRASES

FAMILIES = ("one_write", "two_writes", "three_writes", "lookup", "forbidden", "information", "hand_over")
WRITE_FAMILIES = ("one_write", "two_writes", "three_writes", "lookup")
PERSONAS = (
    "polite: a retired pilot",
    "polite: a doctor on the way to a meeting",
    "friendly: a couple on their honeymoon",
    "friendly: a student on a long journey",
    "curt: a consultant between two flights",
    "curt: a trader with no time",
    "worried: somebody who flies for the first time",
    "worried: a mother with two children",
)
TOOL_OF = {
    "cancel": "cancel_booking",
    "move": "change_flight",
    "cabin": "change_cabin",
    "bags": "set_bags",
    "book": "book_flight",
    "voucher": "give_voucher",
}
"""Kind of wish -> the tool that writes it."""
INFORMS = {"search_flights": ("fare",), "get_booking": ("price", "allowance")}
"""Look-up -> the questions that it answers."""


def context(db: State, user_id: str, others: Sequence[str], rng: Random) -> dict[str, Any]:
    """The traveller, their bookings, the flights of these routes and of one more, and one booking of somebody else."""
    bookings = {booking_id: db.get("bookings", booking_id) for booking_id in db.find("bookings", user_id=user_id)}
    routes = {_route(db.get("flights", row["flight"])) for row in bookings.values() if row}
    origin, destination = rng.sample(CITIES, 2)
    routes.add((origin, destination))
    flights = {flight_id: row for flight_id, row in db.rows("flights") if _route(row) in routes}
    return {
        "user": db.get("users", user_id),
        "bookings": bookings,
        "flights": flights,
        "wish": {"origin": origin, "destination": destination},
        "foreign_booking": foreign(db.find, "bookings", others, rng),
    }


def _route(flight: Mapping[str, Any] | None) -> tuple[str, str]:
    return (flight["origin"], flight["destination"]) if flight else ("", "")


# --- parts of a step ---


def _booked(row: Mapping[str, Any]) -> bool:
    return bool(row["status"] == "booked")


def _cancellable(row: Mapping[str, Any]) -> bool:
    """R5."""
    return bool(row["hours"] < 24 or row["cabin"] == "business" or row["insurance"])


def _look(booking_id: str) -> dict[str, Any]:
    return call("get_booking", booking_id=booking_id)


def _flight(case: Case, flight_id: str) -> Mapping[str, Any]:
    flight: Mapping[str, Any] = case.context["flights"][flight_id]
    return flight


def _flights(case: Case, origin: str, destination: str) -> dict[str, Mapping[str, Any]]:
    return {key: row for key, row in case.context["flights"].items() if _route(row) == (origin, destination)}


def _flight_to_ask_for(case: Case, flights: Mapping[str, Mapping[str, Any]], cheapest: bool, full: bool) -> str:
    """A flight to ask for: the cheapest with a free seat, or any that is full or not; "" when there is none."""
    fits = [key for key, row in flights.items() if row["full"] == full]
    if cheapest:
        fits = sorted(fits, key=lambda key: int(flights[key]["fare"]))[:1]
    return str(case.rng.choice(fits or [""]))


# --- one wish each: Step, or None when the rows do not allow it ---


def _cancel(case: Case, fits: Fits = lambda row: _booked(row) and _cancellable(row)) -> Step | None:
    booking_id, row = case.choose("bookings", fits)
    if not booking_id:
        return None
    write = call("cancel_booking", booking_id=booking_id)
    return Step("cancel", {"booking_id": booking_id}, (booking_id,), (_look(booking_id), write), (str(row["price"]),))


def _move(
    case: Case,
    fits: Fits = lambda row: _booked(row) and row["cabin"] != "basic",
    *,
    cheapest: bool = False,
    full: bool = False,
) -> Step | None:
    booking_id, row = case.choose("bookings", fits)
    if not booking_id:
        return None
    origin, destination = _route(_flight(case, row["flight"]))
    flights = _flights(case, origin, destination)
    new = _flight_to_ask_for(case, flights, cheapest, full)
    if not new or new == row["flight"]:
        return None
    day = "cheapest" if cheapest else flights[new]["day"]
    return Step(
        "move",
        {"booking_id": booking_id, "day": day},
        (booking_id,) if cheapest else (booking_id, day),
        (
            _look(booking_id),
            call("search_flights", origin=origin, destination=destination),
            call("change_flight", booking_id=booking_id, flight_id=new),
        ),
        (str(flights[new]["fare"] + SURCHARGE[row["cabin"]]),) if cheapest else (),
        hear=" and hear what it costs" if cheapest else "",
    )


def _reroute(case: Case) -> Step | None:
    booking_id, row = case.choose("bookings", lambda row: _booked(row) and row["cabin"] != "basic")
    if not booking_id:
        return None
    route = _route(_flight(case, row["flight"]))
    destination = case.rng.choice([city for city in CITIES if city not in route])
    return Step("reroute", {"booking_id": booking_id, "destination": destination}, (booking_id,), (_look(booking_id),))


def _cabin(case: Case, fits: Fits = lambda row: _booked(row) and row["cabin"] != "business", up: bool = True) -> Step | None:
    booking_id, row = case.choose("bookings", fits)
    if not booking_id:
        return None
    place = CABINS.index(row["cabin"])
    choices = CABINS[place + 1 :] if up else CABINS[:place]
    if not choices:
        return None
    new = case.rng.choice(choices)
    write = call("change_cabin", booking_id=booking_id, cabin=new)
    return Step("cabin", {"booking_id": booking_id, "cabin": new}, (booking_id, new), (_look(booking_id), write))


def _bags(case: Case, fits: Fits = lambda row: _booked(row) and row["cabin"] != "basic", allowed: bool = True) -> Step | None:
    booking_id, row = case.choose("bookings", fits)
    if not booking_id:
        return None
    most = BAGS[row["cabin"]]
    number = case.rng.choice([count for count in (2, 3, 4) if (count <= most) == allowed] or [0])
    if not number:
        return None
    write = call("set_bags", booking_id=booking_id, bags=number)
    return Step("bags", {"booking_id": booking_id, "bags": str(number)}, (booking_id, str(number)), (_look(booking_id), write))


def _book(case: Case, *, cheapest: bool = False, full: bool = False) -> Step | None:
    origin, destination = case.context["wish"]["origin"], case.context["wish"]["destination"]
    flights = _flights(case, origin, destination)
    new = _flight_to_ask_for(case, flights, cheapest, full)
    if not new or "book" in case.used:
        return None
    case.used.add("book")
    cabin, day = case.rng.choice(CABINS), "cheapest" if cheapest else flights[new]["day"]
    return Step(
        "book",
        {"origin": origin, "destination": destination, "day": day, "cabin": cabin},
        (destination, cabin) if cheapest else (destination, day, cabin),
        (
            call("search_flights", origin=origin, destination=destination),
            call("book_flight", user_id=case.context["user_id"], flight_id=new, cabin=cabin),
        ),
        (str(flights[new]["fare"] + SURCHARGE[cabin]),),
    )


def _voucher(case: Case, due: bool = True) -> Step | None:
    booking_id, row = case.choose("bookings", lambda row: row["status"] != "cancelled" and due == (_status(case, row) in VOUCHER))
    if not booking_id:
        return None
    status = _status(case, row)
    trouble = status if due else case.rng.choice(tuple(VOUCHER))
    reads = (_look(booking_id), call("get_flight", flight_id=row["flight"]))
    write = call("give_voucher", booking_id=booking_id, amount=VOUCHER.get(status, 0))
    return Step("voucher", {"booking_id": booking_id, "trouble": trouble}, (booking_id,), (*reads, write))


def _status(case: Case, row: Mapping[str, Any]) -> str:
    return str(_flight(case, row["flight"])["status"])


WRITES: Mapping[str, Maker] = {
    "cancel": _cancel,
    "move": _move,
    "cabin": _cabin,
    "bags": _bags,
    "book": _book,
    "voucher": _voucher,
}

# --- families ---


def _information(case: Case, kinds: Sequence[str] = ()) -> Step | None:
    kind = case.rng.choice(tuple(kinds) or ("price", "allowance", "fare"))
    if kind == "fare":
        slots = dict(case.context["wish"])
        flights = _flights(case, slots["origin"], slots["destination"])
        told = min(row["fare"] for row in flights.values() if not row["full"])
        look = call("search_flights", **slots)
        return Step(kind, slots, (), (look,), (str(told),), (look,))
    booking_id, row = case.choose("bookings", lambda row: row["status"] == "booked")
    told = row["price"] if kind == "price" else BAGS[row["cabin"]]
    return drafting.question(kind, {"booking_id": booking_id}, _look(booking_id), told, (booking_id,))


def _closed(case: Case) -> Step | None:
    """R6: the booking is flown or cancelled."""
    closed: Fits = lambda row: row["status"] != "booked"  # noqa: E731
    maker = case.rng.choice(
        (
            lambda: _cancel(case, closed),
            lambda: _move(case, closed),
            lambda: _cabin(case, lambda row: closed(row) and row["cabin"] != "business"),
            lambda: _bags(case, lambda row: closed(row) and row["cabin"] != "basic"),
        )
    )
    step = maker()
    return look_ups(step, "R6", case.context["bookings"][step.slots["booking_id"]]["status"]) if step else None


def _foreign(case: Case) -> Step | None:
    """R2: the booking belongs to somebody else."""
    booking_id = case.context["foreign_booking"]
    if not booking_id:
        return None
    return look_ups(Step("cancel", {"booking_id": booking_id}, (booking_id,), (_look(booking_id),)), "R2", "another account")


def _too_many(case: Case) -> Step | None:
    """R10: more bags than the cabin allows."""
    step = _bags(case, _booked, allowed=False)
    if step is None:
        return None
    most = BAGS[case.context["bookings"][step.slots["booking_id"]]["cabin"]]
    return look_ups(step, "R10", "1 bag" if most == 1 else f"{most} bags")


def _full(case: Case) -> Step | None:
    """R12: the flight is full."""
    if case.rng.random() < 0.5:
        return look_ups(_book(case, full=True), "R12", "full")
    return look_ups(_move(case, full=True), "R12", "full", look=1)


_FORBIDDEN: Mapping[str, Maker] = {
    "R2": _foreign,
    "R5": lambda case: look_ups(_cancel(case, lambda row: _booked(row) and not _cancellable(row)), "R5", "24 hours"),
    "R6": _closed,
    "R7": lambda case: look_ups(_move(case, lambda row: _booked(row) and row["cabin"] == "basic"), "R7", "basic"),
    "R8": lambda case: look_ups(_reroute(case), "R8", "destination"),
    "R9": lambda case: look_ups(_cabin(case, _booked, up=False), "R9", "only go up"),
    "R10": _too_many,
    "R12": _full,
    "R13": lambda case: look_ups(_voucher(case, due=False), "R13", "on time", look=1),
}
"""The rule that forbids -> a wish that it forbids."""


def _lookup(case: Case) -> Step | None:
    return _move(case, cheapest=True) if case.rng.random() < 0.5 else _book(case, cheapest=True)


def _trouble(case: Case) -> Step | None:
    """R11: a lost bag, or special help."""
    reason = case.rng.choice(("lost_bag", "special_help"))
    booking_id, _ = case.choose("bookings", lambda row: row["status"] == ("flown" if reason == "lost_bag" else "booked"))
    if not booking_id:
        return None
    slots = {"booking_id": booking_id, "help": reason}
    return drafting.handed_over("trouble", slots, _look(booking_id), call("transfer_to_human", reason=reason), (booking_id,))


_SINGLES: Mapping[str, Single] = {
    "lookup": lambda case, kinds: _lookup(case),
    "forbidden": lambda case, kinds: forbidden(case, _FORBIDDEN, HELD_OUT_RULES),
    "information": _information,
    "hand_over": lambda case, kinds: _trouble(case),
}

propose = proposer(PHRASES, FAMILIES, WRITES, TOOL_OF, _SINGLES, INFORMS, HELD_OUT)
