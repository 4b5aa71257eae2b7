"""What the airline's scripted agent says: one wording per situation, so that a small model can learn it."""

CANCEL = "I will cancel booking {booking_id}."
MOVE = "I will move booking {booking_id} to the {day} flight {flight_id}."
CABIN = "I will change booking {booking_id} to {cabin}."
BAGS = "I will put {bags} bags on booking {booking_id}."
BOOK = "I will book the {day} flight {flight_id} from {origin} to {destination} in {cabin}."
VOUCHER = "I will give a voucher of {amount} for booking {booking_id}."
DONE = "Done."
REFUNDED = "Done, the refund is {price}."
COSTS = "Done, it costs {price}."
PRICE = "The price is {price}."
ALLOWANCE = "You can have {bags}."
FARE = "The cheapest flight costs {price}."

CLOSED = "booking {booking_id} is {status}"
TOO_OLD = "booking {booking_id} was made more than 24 hours ago"
BASIC = "a basic booking cannot be moved"
ROUTE = "a booking keeps its destination"
LOWER = "the cabin can only go up"
TOO_MANY = "{cabin} has at most {bags}"
FULL = "the {day} flight is full"
NO_FLIGHT = "there is no {day} flight"
ON_TIME = "the flight was on time"


def bags(number: str) -> str:
    """A number of bags in words of the policy: 1 bag, 2 bags."""
    return f"{number} bag" if number == "1" else f"{number} bags"
