"""How travellers say what they want. Reserved sentences belong to test problems."""

from __future__ import annotations

from tasks.worlds.api.scripts.phrases import Phrases, Wish
from tasks.worlds.library.airline.data import CABINS, CITIES, DAYS

WISHES = {
    "cancel": Wish(
        open=(
            "Please cancel booking {booking_id}.",
            "I want to cancel booking {booking_id} and get my money back.",
            "Cancel my booking {booking_id}.",
            "Can you cancel booking {booking_id} for me?",
            "I do not need booking {booking_id}, cancel it.",
            "I would like my money back for booking {booking_id}, please cancel it.",
            "Booking {booking_id} must be cancelled.",
        ),
        reserved=("I would like booking {booking_id} cancelled.", "Can booking {booking_id} be cancelled?"),
        vague=("I want to cancel a booking.", "Please cancel one of my bookings."),
        task="cancel booking {booking_id} and hear how much you get back",
        ask="booking_id",
    ),
    "move": Wish(
        open=(
            "Please move booking {booking_id} to the {day} flight.",
            "I want booking {booking_id} on the {day} flight.",
            "Change booking {booking_id} to the {day} flight.",
            "Can booking {booking_id} be moved to the {day} flight?",
            "I would like to fly on the {day} flight with booking {booking_id}.",
            "I need booking {booking_id} moved, to the {day} flight.",
            "The {day} flight is better for booking {booking_id}, move it.",
        ),
        reserved=("Can you put booking {booking_id} on the {day} flight?", "Booking {booking_id} must go on the {day} flight."),
        vague=("I want to move a booking to the {day} flight.", "Please move a booking of mine to the {day} flight."),
        task="move booking {booking_id} to the {day} flight of the same route",
        ask="booking_id",
    ),
    "reroute": Wish(
        open=(
            "Please move booking {booking_id} to a flight to {destination}.",
            "I want booking {booking_id} to go to {destination} instead.",
            "Change booking {booking_id} so that I fly to {destination}.",
            "Can you move booking {booking_id} to a flight to {destination}?",
            "I would like to fly to {destination} with booking {booking_id}.",
            "I need booking {booking_id} to go to {destination}.",
        ),
        reserved=(
            "Can booking {booking_id} go to {destination} instead?",
            "Put booking {booking_id} on a flight to {destination}.",
        ),
        vague=("I want to move a booking to a flight to {destination}.",),
        task="move booking {booking_id} to a flight to {destination}, which is not where it goes",
        ask="booking_id",
    ),
    "cabin": Wish(
        open=(
            "Please put booking {booking_id} into {cabin}.",
            "I want {cabin} for booking {booking_id}.",
            "Change the cabin of booking {booking_id} to {cabin}.",
            "Can you change booking {booking_id} to {cabin}?",
            "Booking {booking_id} must be in {cabin}.",
            "I would like {cabin} on booking {booking_id}.",
            "Make booking {booking_id} {cabin}.",
        ),
        reserved=("Can booking {booking_id} be in {cabin}?", "I would like to sit in {cabin} with booking {booking_id}."),
        vague=("I want to change the cabin of a booking to {cabin}.", "Please put a booking of mine into {cabin}."),
        task="change the cabin of booking {booking_id} to {cabin}",
        ask="booking_id",
    ),
    "bags": Wish(
        open=(
            "Please put {bags} on booking {booking_id}.",
            "I want {bags} in all on booking {booking_id}.",
            "Set booking {booking_id} to {bags}.",
            "Can you put {bags} on booking {booking_id}?",
            "I will take {bags} on booking {booking_id}.",
            "I would like {bags} in all with booking {booking_id}.",
            "Booking {booking_id} must have {bags}.",
        ),
        reserved=("Can I take {bags} on booking {booking_id}?", "I need {bags} on booking {booking_id}."),
        vague=("I want {bags} in all on a booking.", "Please put {bags} on a booking of mine."),
        task="have {bags} in all on booking {booking_id}",
        ask="booking_id",
    ),
    "book": Wish(
        open=(
            "Please book the {day} flight from {origin} to {destination} in {cabin}.",
            "I want to book the {day} flight from {origin} to {destination} in {cabin}.",
            "Book me {origin} to {destination}, the {day} flight, in {cabin}.",
            "Can you book the {day} flight from {origin} to {destination} in {cabin}?",
            "I would like to fly from {origin} to {destination} on the {day} flight, in {cabin}.",
            "Find me a seat in {cabin} from {origin} to {destination} on the {day} flight.",
            "Get me on the {day} flight from {origin} to {destination}, {cabin} please.",
        ),
        reserved=(
            "Can I get the {day} flight from {origin} to {destination} in {cabin}?",
            "I need the {day} flight from {origin} to {destination}, in {cabin}.",
        ),
        vague=(),
        task="book the {day} flight from {origin} to {destination} in {cabin} and hear what it costs",
    ),
    "voucher": Wish(
        open=(
            "The flight of booking {booking_id} was {trouble}, I want a voucher.",
            "I want a voucher for booking {booking_id}, the flight was {trouble}.",
            "Please give me a voucher, the flight of booking {booking_id} was {trouble}.",
            "Can I have a voucher? The flight of booking {booking_id} was {trouble}.",
            "The flight was {trouble}, so give me a voucher for booking {booking_id}.",
            "I would like a voucher for booking {booking_id} because the flight was {trouble}.",
        ),
        reserved=(
            "Booking {booking_id}: the flight was {trouble}. Do I get a voucher?",
            "As the flight of booking {booking_id} was {trouble}, give me a voucher.",
        ),
        vague=("A flight of mine was {trouble}, I want a voucher.",),
        task="get a voucher for booking {booking_id}, because the flight was {trouble}",
        ask="booking_id",
    ),
    "price": Wish(
        open=(
            "What did booking {booking_id} cost?",
            "How much is booking {booking_id}?",
            "Tell me the price of booking {booking_id}.",
            "Can you tell me the price of booking {booking_id}?",
            "I would like to hear what booking {booking_id} cost.",
            "What is the price of booking {booking_id}?",
        ),
        reserved=("I want to know the price of booking {booking_id}.", "How much did I pay for booking {booking_id}?"),
        vague=("What did a booking of mine cost?",),
        task="know the price of booking {booking_id}",
        ask="booking_id",
    ),
    "allowance": Wish(
        open=(
            "How many bags can I have on booking {booking_id}?",
            "What is the bag limit of booking {booking_id}?",
            "Tell me how many bags booking {booking_id} allows.",
            "Can you tell me how many bags I may take on booking {booking_id}?",
            "I would like to hear the bag limit of booking {booking_id}.",
            "How many bags are allowed on booking {booking_id}?",
        ),
        reserved=(
            "I want to know how many bags booking {booking_id} allows.",
            "Which number of bags is fine on booking {booking_id}?",
        ),
        vague=("How many bags can I have on a booking of mine?",),
        task="know how many bags you can have on booking {booking_id}",
        ask="booking_id",
    ),
    "fare": Wish(
        open=(
            "What is the cheapest fare from {origin} to {destination} that is not full?",
            "How much is the cheapest free flight from {origin} to {destination}?",
            "Tell me the lowest fare from {origin} to {destination} with a free seat.",
            "Can you tell me the lowest fare from {origin} to {destination} with a seat left?",
            "What does the cheapest flight from {origin} to {destination} cost that is not full?",
            "I would like to hear the cheapest fare from {origin} to {destination} with free seats.",
        ),
        reserved=(
            "I want to know the lowest fare from {origin} to {destination} with free seats.",
            "Which fare has the cheapest flight from {origin} to {destination} with a seat left?",
        ),
        vague=(),
        task="know the lowest fare from {origin} to {destination} on a flight that is not full",
    ),
    "trouble": Wish(
        open=(
            "On booking {booking_id} {help}.",
            "It is about booking {booking_id}: {help}.",
            "Please help me with booking {booking_id}, {help}.",
            "Can you help? {help}, on booking {booking_id}.",
            "I have a problem with booking {booking_id}, {help}.",
            "I need help, {help}. My booking is {booking_id}.",
        ),
        reserved=("I write because of booking {booking_id}, {help}.", "Booking {booking_id}: {help}."),
        vague=("It is about a booking of mine: {help}.",),
        task="say about booking {booking_id} that {help}, and be put through to a person",
        ask="booking_id",
    ),
}
PHRASES = Phrases(
    wishes=WISHES,
    lexicon={
        "day": {**{day: day for day in DAYS}, "cheapest": "cheapest"},
        "cabin": {cabin: cabin for cabin in CABINS},
        "bags": {"2": "two bags", "3": "three bags", "4": "four bags"},
        "trouble": {"delayed": "late", "cancelled": "called off"},
        "help": {"lost_bag": "my bag is lost", "special_help": "I need a wheelchair"},
        "origin": {city: city for city in CITIES},
        "destination": {city: city for city in CITIES},
    },
    patterns={"booking_id": r"B\d+"},
    answers={"booking_id": ("It is booking {booking_id}.", "Booking {booking_id}.", "The booking is {booking_id}.")},
    asks={"booking_id": ("which booking", "what booking", "booking id", "booking number")},
)
