"""The airline's scripted agent: one plan per kind of wish, following policy.md rule by rule, on messages alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.contract.scripts import COMMON_ERRORS
from tasks.worlds.api.scripts.agent import AgentScript, Plan, agent
from tasks.worlds.library.airline import agent_phrases as say
from tasks.worlds.library.airline.data import BAGS, CABINS
from tasks.worlds.library.airline.problems import TOOL_OF
from tasks.worlds.library.airline.rules import VOUCHER
from tasks.worlds.library.airline.user_phrases import PHRASES

Slots = dict[str, str]


def _booking(script: AgentScript, slots: Slots) -> tuple[str, dict[str, Any]]:
    """(booking id, its row): R2 and unknown ids are settled here."""
    return script.own(slots, "booking_id", "get_booking")


def _open(script: AgentScript, slots: Slots) -> tuple[str, dict[str, Any]]:
    """A booking that is neither flown nor cancelled (R6)."""
    booking_id, booking = _booking(script, slots)
    script.mind(booking["status"] != "booked", say.CLOSED.format(booking_id=booking_id, status=booking["status"]))
    return booking_id, booking


def _flight(script: AgentScript, flights: Mapping[str, str], day: str) -> tuple[str, str, str, bool]:
    """(flight id, day, fare, full) of the wanted day, or of the cheapest flight with a free seat; an empty id for none."""
    rows = {key: text.split() for key, text in flights.items()}
    if day == "cheapest":
        free = [key for key, row in rows.items() if row[-1] != "full"]
        chosen = free[0] if script.errs("ignores_price") else min(free, key=lambda key: int(rows[key][1]))
    else:
        chosen = next((key for key, row in rows.items() if row[0] == day), "")
    return (chosen, rows[chosen][0], rows[chosen][1], rows[chosen][-1] == "full") if chosen else ("", day, "", False)


def cancel(script: AgentScript, slots: Slots) -> str:
    """Cancel a booking, if R5 and R6 allow it."""
    booking_id, booking = _open(script, slots)
    late = booking["hours"] >= 24 and booking["cabin"] != "business" and not booking["insurance"]
    script.mind(late, say.TOO_OLD.format(booking_id=booking_id))
    answer = script.write("cancel_booking", say.CANCEL.format(booking_id=booking_id), booking_id=booking_id)
    return say.REFUNDED.format(price=script.amount(answer["refund"])) if answer else say.DONE


def move(script: AgentScript, slots: Slots) -> str:
    """Move a booking to another flight (R6, R7, R12)."""
    booking_id, booking = _open(script, slots)
    script.mind(booking["cabin"] == "basic", say.BASIC)
    origin, destination = booking["route"].split()
    return _move(script, booking_id, origin, destination, slots["day"])


def _move(script: AgentScript, booking_id: str, origin: str, destination: str, day: str) -> str:
    flights = script.read("search_flights", origin=origin, destination=destination)
    flight_id, day, _, full = _flight(script, flights, day)
    if not flight_id:
        script.refuse(say.NO_FLIGHT.format(day=day))
    script.mind(full, say.FULL.format(day=day))
    summary = say.MOVE.format(booking_id=booking_id, day=day, flight_id=flight_id)
    answer = script.write("change_flight", summary, booking_id=booking_id, flight_id=flight_id)
    return say.COSTS.format(price=script.amount(answer["price"])) if answer else say.DONE


def reroute(script: AgentScript, slots: Slots) -> str:
    """R6, R7, R8: never allowed."""
    booking_id, booking = _open(script, slots)
    script.mind(True, say.ROUTE)
    return _move(script, booking_id, booking["route"].split()[0], slots["destination"], "cheapest")


def cabin(script: AgentScript, slots: Slots) -> str:
    """Change the cabin (R6, R9)."""
    booking_id, booking = _open(script, slots)
    script.mind(CABINS.index(slots["cabin"]) <= CABINS.index(booking["cabin"]), say.LOWER)
    summary = say.CABIN.format(booking_id=booking_id, cabin=slots["cabin"])
    script.write("change_cabin", summary, booking_id=booking_id, cabin=slots["cabin"])
    return say.DONE


def bags(script: AgentScript, slots: Slots) -> str:
    """Add bags (R6, R10)."""
    booking_id, booking = _open(script, slots)
    wanted, most = int(slots["bags"]), BAGS[booking["cabin"]]
    script.mind(wanted > most, say.TOO_MANY.format(cabin=booking["cabin"], bags=say.bags(str(most))))
    script.write("set_bags", say.BAGS.format(bags=wanted, booking_id=booking_id), booking_id=booking_id, bags=wanted)
    return say.DONE


def book(script: AgentScript, slots: Slots) -> str:
    """Book a flight (R12)."""
    flights = script.read("search_flights", origin=slots["origin"], destination=slots["destination"])
    if flights is None:
        script.refuse(say.NO_FLIGHT.format(day=slots["day"]))
    flight_id, day, _, full = _flight(script, flights, slots["day"])
    if not flight_id:
        script.refuse(say.NO_FLIGHT.format(day=day))
    script.mind(full, say.FULL.format(day=day))
    route = {name: slots[name] for name in ("origin", "destination", "cabin")}
    summary = say.BOOK.format(day=day, flight_id=flight_id, **route)
    user_id = script.person()
    answer = script.write("book_flight", summary, user_id=user_id, flight_id=flight_id, cabin=slots["cabin"])
    return say.COSTS.format(price=script.amount(answer["price"])) if answer else say.DONE


def voucher(script: AgentScript, slots: Slots) -> str:
    """Give a voucher for a delay (R13)."""
    booking_id, booking = _booking(script, slots)
    status = script.read("get_flight", flight_id=booking["flight"])["status"]
    script.mind(status not in VOUCHER, say.ON_TIME)
    amount = VOUCHER.get(status, VOUCHER["delayed"])
    summary = say.VOUCHER.format(amount=amount, booking_id=booking_id)
    script.write("give_voucher", summary, booking_id=booking_id, amount=amount)
    return say.DONE


def price(script: AgentScript, slots: Slots) -> str:
    """Tell a price (R2)."""
    _, booking = _booking(script, slots)
    return say.PRICE.format(price=script.amount(booking["price"]))


def allowance(script: AgentScript, slots: Slots) -> str:
    """Tell how many bags are free (R10)."""
    _, booking = _booking(script, slots)
    return say.ALLOWANCE.format(bags=say.bags(script.amount(BAGS[booking["cabin"]])))


def fare(script: AgentScript, slots: Slots) -> str:
    """The cheapest flight with a free seat."""
    flights = script.read("search_flights", origin=slots["origin"], destination=slots["destination"])
    if flights is None:
        script.refuse(say.NO_FLIGHT.format(day="such"))
    return say.FARE.format(price=script.amount(int(_flight(script, flights, "cheapest")[2])))


def trouble(script: AgentScript, slots: Slots) -> str:
    """Hand over to a person what only a person may do (R11)."""
    _booking(script, slots)
    script.hand_over(reason=slots["help"])


PLANS: Mapping[str, Plan] = {
    "cancel": cancel,
    "move": move,
    "reroute": reroute,
    "cabin": cabin,
    "bags": bags,
    "book": book,
    "voucher": voucher,
    "price": price,
    "allowance": allowance,
    "fare": fare,
    "trouble": trouble,
}
ERRORS = COMMON_ERRORS
AGENT = agent(PHRASES, PLANS, tuple(TOOL_OF.values()), ERRORS)
