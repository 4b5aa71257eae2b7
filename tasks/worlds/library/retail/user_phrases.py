"""How customers of the shop say what they want. Reserved sentences belong to test problems."""

from __future__ import annotations

from tasks.worlds.api.scripts.phrases import Phrases, Wish
from tasks.worlds.library.retail.data import OPTIONS, PRODUCTS

WISHES = {
    "cancel": Wish(
        open=(
            "Please cancel order {order_id}, I {reason}.",
            "I want to cancel order {order_id} because I {reason}.",
            "Cancel order {order_id}. I {reason}.",
            "I need order {order_id} cancelled because I {reason}.",
            "Can you cancel order {order_id}? I {reason}.",
            "I {reason}, so stop order {order_id}.",
            "Order {order_id} is not needed, I {reason}.",
        ),
        reserved=("I would like order {order_id} cancelled, I {reason}.", "Can order {order_id} be cancelled? I {reason}."),
        vague=("I want to cancel an order because I {reason}.", "Please cancel one of my orders, I {reason}."),
        task="cancel order {order_id} because you {reason}",
        ask="order_id",
    ),
    "address": Wish(
        open=(
            "Please send order {order_id} to {address}.",
            "I want order {order_id} sent to {address}.",
            "Change the address of order {order_id} to {address}.",
            "Can order {order_id} go to {address}?",
            "My new address for order {order_id} is {address}.",
            "Use {address} for order {order_id}, I have moved.",
            "I would like order {order_id} at {address}.",
        ),
        reserved=("Order {order_id} must go to {address}.", "Can you send order {order_id} to {address} instead?"),
        vague=("Please send an order of mine to {address}.", "I want to change the address of an order to {address}."),
        task="have order {order_id} sent to {address}",
        ask="order_id",
    ),
    "payment": Wish(
        open=(
            "Please charge order {order_id} to my {payment}.",
            "I want to pay order {order_id} with my {payment}.",
            "Change the payment of order {order_id} to my {payment}.",
            "Can you charge order {order_id} to my {payment}?",
            "Order {order_id} must be paid with my {payment}.",
            "I would rather pay order {order_id} with my {payment}.",
            "Take my {payment} for order {order_id}.",
        ),
        reserved=("Can I pay order {order_id} with my {payment} instead?", "Use my {payment} to pay order {order_id}."),
        vague=("I want to pay an order with my {payment}.", "Please charge an order of mine to my {payment}."),
        task="pay order {order_id} with your {payment}",
        ask="order_id",
    ),
    "change": Wish(
        open=(
            "Please change the {product} in order {order_id} to {option}.",
            "I want {option} for the {product} in order {order_id}, it has not come yet.",
            "Change the {product} of order {order_id} to {option}.",
            "Can the {product} in order {order_id} be {option}?",
            "I would like the {product} in order {order_id}, which is on its way, to be {option}.",
            "Make it {option} for the {product} in order {order_id}.",
            "Before you send order {order_id}, change the {product} to {option}.",
        ),
        reserved=(
            "Can you change the {product} in order {order_id} to {option}?",
            "Make the {product} in order {order_id} {option}.",
        ),
        vague=("I want to change the {product} in an order to {option}.",),
        task="change the {product} in order {order_id} to {option}",
        ask="order_id",
    ),
    "exchange": Wish(
        open=(
            "Please exchange the {product} from order {order_id} for {option}.",
            "I want to exchange the {product} of order {order_id} for {option}.",
            "Exchange the {product} I got in order {order_id} for {option}.",
            "Can you exchange the {product} that came with order {order_id} for {option}?",
            "I got the {product} of order {order_id} and would rather have {option}.",
            "Swap the {product} that came in order {order_id} for {option}.",
            "I would like {option} in exchange for the {product} of order {order_id}.",
        ),
        reserved=(
            "Can I exchange the {product} from order {order_id} for {option}?",
            "Swap the {product} of order {order_id} for {option}.",
        ),
        vague=("I want to exchange the {product} I got for {option}.",),
        task="exchange the {product} of order {order_id} for {option}",
        ask="order_id",
    ),
    "return": Wish(
        open=(
            "Please return the {product} from order {order_id}, refund to {target}.",
            "I want to return the {product} of order {order_id} with a refund to {target}.",
            "Return the {product} I got in order {order_id} and refund {target}.",
            "Can you take back the {product} of order {order_id} and refund {target}?",
            "I do not like the {product} from order {order_id}, refund {target}.",
            "The {product} of order {order_id} goes back, refund to {target}.",
            "I would like to send back the {product} from order {order_id}, with a refund to {target}.",
        ),
        reserved=(
            "Can I return the {product} from order {order_id}, refund to {target}?",
            "Take back the {product} of order {order_id} and refund {target}.",
        ),
        vague=("I want to return the {product} I got, refund to {target}.",),
        task="return the {product} of order {order_id} and have the refund on {target}; you want to hear how much it is",
        ask="order_id",
    ),
    "total": Wish(
        open=(
            "How much is order {order_id} in total?",
            "What is the total of order {order_id}?",
            "Tell me the total of order {order_id}.",
            "Can you tell me the total of order {order_id}?",
            "How much did I pay for order {order_id} in all?",
            "I would like the total of order {order_id}.",
        ),
        reserved=("What did order {order_id} cost in total?", "I want to know the total of order {order_id}."),
        vague=("What is the total of an order of mine?",),
        task="know the total of order {order_id}",
        ask="order_id",
    ),
    "status": Wish(
        open=(
            "What is the status of order {order_id}?",
            "Where is order {order_id} now?",
            "Tell me the status of order {order_id}.",
            "Can you tell me how order {order_id} is doing?",
            "Has order {order_id} been sent?",
            "I would like to hear where order {order_id} is.",
        ),
        reserved=("How far is order {order_id}?", "I want to know the status of order {order_id}."),
        vague=("What is the status of an order of mine?",),
        task="know the status of order {order_id}",
        ask="order_id",
    ),
    "balance": Wish(
        open=(
            "How much is on my gift card?",
            "What is the balance of my gift card?",
            "Tell me the balance of my gift card.",
            "Can you tell me the balance of my gift card?",
            "I would like to know what is on my gift card.",
            "What is left on my gift card?",
        ),
        reserved=("How much is left on my gift card?", "I want to know the balance of my gift card."),
        vague=(),
        task="know the balance of your gift card",
    ),
    "price": Wish(
        open=(
            "What does the cheapest {product} in stock cost?",
            "How much is your cheapest {product} in stock?",
            "Tell me the price of the cheapest {product} in stock.",
            "Can you tell me the price of the cheapest {product} in stock?",
            "I would like to hear what your cheapest {product} in stock costs.",
            "What is the lowest price of a {product} in stock?",
        ),
        reserved=(
            "I want to know what the cheapest {product} in stock costs.",
            "Which price has the cheapest {product} in stock?",
        ),
        vague=(),
        task="know the price of the cheapest {product} in stock",
    ),
    "trouble": Wish(
        open=(
            "Order {order_id} {trouble}.",
            "My order {order_id} {trouble}.",
            "The parcel of order {order_id} {trouble}.",
            "I am not happy, order {order_id} {trouble}.",
            "Can you help me? Order {order_id} {trouble}.",
            "There is a problem: order {order_id} {trouble}.",
        ),
        reserved=("It seems that order {order_id} {trouble}.", "I must tell you that order {order_id} {trouble}."),
        vague=("An order of mine {trouble}.",),
        task="report that order {order_id} {trouble}, and be put through to a person",
        ask="order_id",
    ),
}
PHRASES = Phrases(
    wishes=WISHES,
    lexicon={
        "reason": {"no_longer_needed": "no longer need it", "ordered_by_mistake": "ordered it by mistake"},
        "payment": {"gift": "gift card", "card": "credit card"},
        "target": {"original": "the original payment", "gift": "my gift card", "card": "my other card"},
        "trouble": {"damaged": "came damaged", "lost": "never came"},
        "product": {name: name for name in PRODUCTS},
        "option": {**{name: name for name in OPTIONS}, "cheapest": "the cheapest one in stock"},
    },
    patterns={"order_id": r"W\d+", "address": r"\d+ [A-Z][a-z]+ [A-Z][a-z]+"},
    answers={"order_id": ("It is order {order_id}.", "Order {order_id}.", "The order is {order_id}.")},
    asks={"order_id": ("which order", "what order", "order id", "order number")},
)
