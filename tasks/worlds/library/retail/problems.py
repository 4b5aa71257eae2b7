"""The shop's problems: from one customer's rows to a draft with ground truth, in a family or along a walk of tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from tasks.worlds.api.scripts import drafting
from tasks.worlds.api.scripts.drafting import Case, Maker, Single, Step, call, forbidden, foreign, look_ups, proposer
from tasks.worlds.api.scripts.names import address
from tasks.worlds.api.state import State
from tasks.worlds.library.retail.rules import HELD_OUT, HELD_OUT_RULES
from tasks.worlds.library.retail.user_phrases import PHRASES

FAMILIES = ("one_write", "two_writes", "three_writes", "lookup", "forbidden", "information", "hand_over")
WRITE_FAMILIES = ("one_write", "two_writes", "three_writes", "lookup")
PERSONAS = (
    "polite: a retired teacher",
    "polite: a nurse after a long shift",
    "friendly: a student who moves house",
    "friendly: a father of three",
    "curt: a busy engineer",
    "curt: a shop owner with no time",
    "worried: a first-time customer",
    "worried: someone who needs it for a party",
)
TOOL_OF = {
    "cancel": "cancel_order",
    "address": "change_address",
    "payment": "change_payment",
    "change": "change_item",
    "exchange": "exchange_item",
    "return": "return_item",
}
"""Kind of wish -> the tool that writes it."""
INFORMS = {"get_product": ("price",), "get_user": ("balance",), "get_order": ("total", "status")}
"""Look-up -> the questions that it answers."""
_SHARING = {"address", "payment", "change"}
"""Wishes that may concern one and the same pending order."""


def context(db: State, user_id: str, others: Sequence[str], rng: Random) -> dict[str, Any]:
    """The customer, their orders, the products in them, and one order of somebody else."""
    orders = {order_id: db.get("orders", order_id) for order_id in db.find("orders", user_id=user_id)}
    names = {item["product"] for order in orders.values() if order for item in order["items"]}
    products = {name: row for name, row in db.rows("products") if name in names}
    return {
        "user": db.get("users", user_id),
        "orders": orders,
        "products": products,
        "foreign_order": foreign(db.find, "orders", others, rng),
    }


# --- parts of a step ---


def _choose(case: Case, statuses: Sequence[str], kind: str, changed: bool | None = None) -> str:
    """An order of the customer in one of these statuses that no earlier wish uses, or that the wish may share; "" for none."""
    fit = [
        order_id
        for order_id, order in case.context["orders"].items()
        if order["status"] in statuses and (changed is None or bool(order.get("changed")) == changed)
    ]
    free = [order_id for order_id in fit if order_id not in case.used and f"{order_id} shared" not in case.used]
    shared = [order_id for order_id in fit if f"{order_id} shared" in case.used] if kind in _SHARING else []
    order_id = str(case.rng.choice(free or shared or [""]))
    case.used.add(f"{order_id} shared" if kind in _SHARING else order_id)
    return order_id


def _order(case: Case, order_id: str) -> Mapping[str, Any]:
    order: Mapping[str, Any] = case.context["orders"][order_id]
    return order


def _payments(case: Case, kind: str, other_than: str = "") -> list[str]:
    return [payment for payment, own in case.user["payments"].items() if own == kind and payment != other_than]


def _look(order_id: str) -> dict[str, Any]:
    return call("get_order", order_id=order_id)


def _user(case: Case) -> dict[str, Any]:
    return call("get_user", user_id=case.context["user_id"])


# --- one wish each: Step, or None when the rows do not allow it ---


def _cancel(case: Case, statuses: Sequence[str] = ("pending",)) -> Step | None:
    order_id = _choose(case, statuses, "cancel")
    if not order_id:
        return None
    reason = case.rng.choice(("no_longer_needed", "ordered_by_mistake"))
    write = call("cancel_order", order_id=order_id, reason=reason)
    return Step("cancel", {"order_id": order_id, "reason": reason}, (order_id,), (_look(order_id), write))


def _address(case: Case, statuses: Sequence[str] = ("pending",)) -> Step | None:
    order_id = _choose(case, statuses, "address")
    if not order_id:
        return None
    new = address(case.rng)
    write = call("change_address", order_id=order_id, address=new)
    step = Step("address", {"order_id": order_id, "address": new}, (order_id, new), (_look(order_id), write))
    return step if new != _order(case, order_id)["address"] else None


def _payment(case: Case, statuses: Sequence[str] = ("pending",), covered: bool = True) -> Step | None:
    order_id = _choose(case, statuses, "payment")
    if not order_id:
        return None
    order = _order(case, order_id)
    kind = "gift" if not covered or (order["paid"][0] != "G" and case.rng.random() < 0.5) else "card"
    choices = _payments(case, kind, other_than=order["paid"])
    if not choices:
        return None
    cost = sum(item["price"] for item in order["items"])
    if kind == "gift" and (case.user["balances"][choices[0]] >= cost) != covered:
        return None
    write = call("change_payment", order_id=order_id, payment_id=choices[0])
    actions = (_look(order_id), _user(case), write)
    return Step("payment", {"order_id": order_id, "payment": kind}, (order_id,), actions)


def _swap(
    case: Case,
    kind: str,
    statuses: Sequence[str] = (),
    *,
    cheapest: bool = False,
    in_stock: bool = True,
    changed: bool | None = False,
) -> Step | None:
    """Change (pending) or exchange (delivered) an item: for a named option, or for the cheapest in stock."""
    order_id = _choose(case, statuses or (("pending",) if kind == "change" else ("delivered",)), kind, changed)
    if not order_id:
        return None
    item = case.rng.choice(_order(case, order_id)["items"])
    variants = case.context["products"][item["product"]]["variants"]
    if cheapest:
        new = min((key for key in variants if variants[key]["stock"]), key=lambda key: int(variants[key]["price"]))
        fits = [] if new == item["item_id"] else [new]
    else:
        fits = [key for key in variants if key != item["item_id"] and bool(variants[key]["stock"]) == in_stock]
    if not fits:
        return None
    new = case.rng.choice(fits)
    option = "cheapest" if cheapest else variants[new]["option"]
    write = call(TOOL_OF[kind], order_id=order_id, item_id=item["item_id"], new_item_id=new)
    return Step(
        kind,
        {"order_id": order_id, "product": item["product"], "option": option},
        (order_id, item["product"]) if cheapest else (order_id, item["product"], option),
        (_look(order_id), call("get_product", product=item["product"]), write),
        (str(variants[new]["price"]),) if cheapest else (),
        hear=" and hear what it costs" if cheapest else "",
    )


def _return(case: Case, statuses: Sequence[str] = ("delivered",), target: str = "") -> Step | None:
    order_id = _choose(case, statuses, "return")
    if not order_id:
        return None
    order = _order(case, order_id)
    item = case.rng.choice(order["items"])
    target = target or ("gift" if order["paid"][0] == "C" and case.rng.random() < 0.5 else "original")
    choices = [order["paid"]] if target == "original" else _payments(case, target, other_than=order["paid"])
    if not choices:
        return None
    reads = (_look(order_id),) if target == "original" else (_look(order_id), _user(case))
    write = call("return_item", order_id=order_id, item_id=item["item_id"], payment_id=choices[0])
    slots = {"order_id": order_id, "product": item["product"], "target": target}
    return Step("return", slots, (order_id, item["product"]), (*reads, write), (str(item["price"]),))


WRITES: Mapping[str, Maker] = {
    "cancel": _cancel,
    "address": _address,
    "payment": _payment,
    "change": lambda case: _swap(case, "change"),
    "exchange": lambda case: _swap(case, "exchange"),
    "return": _return,
}

# --- families ---


def _information(case: Case, kinds: Sequence[str] = ()) -> Step | None:
    kind = case.rng.choice(tuple(kinds) or ("total", "status", "balance", "price"))
    if kind in ("total", "status"):
        order_id = case.rng.choice(list(case.context["orders"]))
        order = _order(case, order_id)
        told = str(sum(item["price"] for item in order["items"])) if kind == "total" else order["status"]
        return drafting.question(kind, {"order_id": order_id}, _look(order_id), told, (order_id,))
    if kind == "balance":
        gift = _payments(case, "gift")[0]
        return drafting.question(kind, {}, _user(case), case.user["balances"][gift])
    product = case.rng.choice(list(case.context["products"]))
    prices = [row["price"] for row in case.context["products"][product]["variants"].values() if row["stock"]]
    look = call("get_product", product=product)
    return Step(kind, {"product": product}, (), (look,), (str(min(prices)),), (look,))


def _wrong_status(case: Case) -> Step | None:
    """R5 and R6: the order is in another status than the wish needs."""
    kind = case.rng.choice(tuple(WRITES))
    pending = kind in ("cancel", "address", "payment", "change")
    statuses = ("shipped", "delivered", "cancelled") if pending else ("shipped", "pending", "cancelled")
    if kind in ("change", "exchange"):
        step = _swap(case, kind, statuses, changed=None)
    else:
        makers: Mapping[str, Callable[..., Step | None]] = {
            "cancel": _cancel,
            "address": _address,
            "payment": _payment,
            "return": _return,
        }
        step = makers[kind](case, statuses)
    status = _order(case, step.slots["order_id"])["status"] if step else ""
    return look_ups(step, "R5" if pending else "R6", status)


def _foreign(case: Case) -> Step | None:
    """R2: the order belongs to somebody else."""
    order_id = case.context["foreign_order"]
    if not order_id:
        return None
    reason = case.rng.choice(("no_longer_needed", "ordered_by_mistake"))
    slots = {"order_id": order_id, "reason": reason}
    return Step("cancel", slots, (order_id,), (_look(order_id),), ("another account",), (_look(order_id),), "R2")


_FORBIDDEN: Mapping[str, Maker] = {
    "R2": _foreign,
    "R5": _wrong_status,
    "R7": lambda case: look_ups(_swap(case, case.rng.choice(("change", "exchange")), changed=True), "R7", "only once"),
    "R8": lambda case: look_ups(_return(case, target="card"), "R8", "original payment"),
    "R9": lambda case: look_ups(_swap(case, case.rng.choice(("change", "exchange")), in_stock=False), "R9", "out of stock", look=1),
    "R10": lambda case: look_ups(_payment(case, covered=False), "R10", "balance", look=1),
}
"""The rule that forbids -> a wish that it forbids (R5 stands for R6 too)."""


def _trouble(case: Case) -> Step | None:
    """R11: a parcel that came damaged or never came."""
    trouble = case.rng.choice(("damaged", "lost"))
    order_id = _choose(case, ("delivered",) if trouble == "damaged" else ("shipped", "delivered"), "trouble")
    if not order_id:
        return None
    slots = {"order_id": order_id, "trouble": trouble}
    return drafting.handed_over("trouble", slots, _look(order_id), call("transfer_to_human", reason=trouble), (order_id,))


_SINGLES: Mapping[str, Single] = {
    "lookup": lambda case, kinds: _swap(case, case.rng.choice(("change", "exchange")), cheapest=True),
    "forbidden": lambda case, kinds: forbidden(case, _FORBIDDEN, HELD_OUT_RULES),
    "information": _information,
    "hand_over": lambda case, kinds: _trouble(case),
}

propose = proposer(PHRASES, FAMILIES, WRITES, TOOL_OF, _SINGLES, INFORMS, HELD_OUT)
