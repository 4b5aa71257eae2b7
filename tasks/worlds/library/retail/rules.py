"""The shop's policy as tests: what one write breaks, and the two lists of predicates."""

from __future__ import annotations

from tasks.contract.problem import Action
from tasks.worlds.api import conduct
from tasks.worlds.api.state import State
from tasks.worlds.library.retail.api import total

PENDING = {"cancel_order", "change_address", "change_payment", "change_item"}
SWAPS = {"change_item", "exchange_item"}
WRITE_RULES = ("R2", "R5", "R6", "R7", "R8", "R9", "R10")
HELD_OUT_RULES = ("R8",)
"""Rules that only test problems turn on."""
HELD_OUT = (frozenset({"cancel_order", "return_item"}), frozenset({"change_address", "exchange_item"}))
"""Pairs of writes that only test problems combine."""


def check(state: State, action: Action, user_id: str) -> dict[str, str]:
    """The rules that one write would break in this state: rule -> reason. An order that does not exist breaks none."""
    arguments = action.arguments
    order = state.get("orders", arguments["order_id"])
    user = state.get("users", order["user_id"]) if order else None
    if order is None or user is None:
        return {}
    found = {}
    if order["user_id"] != user_id:
        found["R2"] = f"order {arguments['order_id']} belongs to another account"
    if action.name in PENDING and order["status"] != "pending":
        found["R5"] = f"order {arguments['order_id']} is {order['status']}"
    if action.name not in PENDING and order["status"] != "delivered":
        found["R6"] = f"order {arguments['order_id']} is {order['status']}"
    if action.name in SWAPS:
        found.update(_swap(state, order, arguments))
    payment = user["payments"].get(arguments.get("payment_id"))
    if action.name == "return_item" and payment != "gift" and arguments["payment_id"] != order["paid"]:
        found["R8"] = "the refund goes neither to the original payment nor to a gift card"
    if action.name == "change_payment" and payment == "gift" and user["balances"][arguments["payment_id"]] < total(order):
        found["R10"] = "the balance of the gift card is too low"
    return found


def _swap(state: State, order: dict[str, object], arguments: dict[str, str]) -> dict[str, str]:
    found = {}
    if order.get("changed"):
        found["R7"] = "the items of this order were changed before"
    for product, row in state.rows("products"):
        variants = row["variants"]
        if arguments["item_id"] in variants:
            new = variants.get(arguments["new_item_id"])
            if new is None:
                found["R9"] = f"{arguments['new_item_id']} is no {product}"
            elif not new["stock"]:
                found["R9"] = f"{arguments['new_item_id']} is out of stock"
    return found


POLICY = conduct.Policy(
    check,
    WRITE_RULES,
    identified="R1",
    confirmed="R3",
    one_call="R4",
    looked_up={"R11": "get_order"},
    lean="R13",
    held_out=HELD_OUT,
    held_out_rules=HELD_OUT_RULES,
)
"""The rules of policy.md that a machine can check."""

EVERY_WRITE = ("R1", "R2", "R3", "R4")
GUARDS = {
    "cancel_order": (*EVERY_WRITE, "R5"),
    "change_address": (*EVERY_WRITE, "R5"),
    "change_payment": (*EVERY_WRITE, "R5", "R10"),
    "change_item": (*EVERY_WRITE, "R5", "R7", "R9"),
    "exchange_item": (*EVERY_WRITE, "R6", "R7", "R9"),
    "return_item": (*EVERY_WRITE, "R6", "R8"),
}
"""The predicates that judge each write tool (`cairn serve --with-tools`)."""
