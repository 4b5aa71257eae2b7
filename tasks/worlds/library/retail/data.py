"""The shop's tables, made from a size and a seed: users, orders, products.

users:    id -> name, zip, payments {payment id: "card" | "gift"}, balances {gift card id: amount}
orders:   id -> user_id, status (pending, shipped, delivered, cancelled), items [{item_id, product, option, price}], address,
          paid (payment id), and as they happen: changed, reason, returned, refund_to
products: name -> variants {item id: {option, price, stock}}; prices within a product differ, so that "the cheapest" is one
"""

from __future__ import annotations

from random import Random
from typing import Any

from tasks.contract.context import seed_of
from tasks.worlds.api.scripts.names import address, numbers, people
from tasks.worlds.api.state import Tables

PRODUCTS = (
    "mug", "lamp", "chair", "desk", "shelf", "rug", "clock", "vase", "kettle", "pan", "bowl", "towel", "pillow", "blanket",
    "mirror", "basket", "tray", "stool", "jug", "candle",
)  # fmt: skip
OPTIONS = ("red", "blue", "green", "black", "white", "grey", "yellow", "brown")
VARIANTS = 3
"""Variants of a product; ours: enough to compare, few enough for a short answer."""
STATUSES = ("pending", "delivered", "shipped", "cancelled")


def tables(size: int, seed: int) -> Tables:
    """The database of `size` users with three or four orders each; at least one is pending and one delivered."""
    rng = Random(seed_of("retail", size, seed))
    products = _products(rng)
    users: dict[str, Any] = {}
    orders: dict[str, Any] = {}
    ids = iter(numbers(rng, 4 * size, 4))
    cards = iter(numbers(rng, 3 * size, 3))
    for number, (name, zip_code) in zip(numbers(rng, size, 3), people(rng, size), strict=True):
        user_id = f"U{number}"
        users[user_id] = _user(rng, name, zip_code, cards)
        statuses = ["pending", "delivered", *rng.choices(STATUSES, (4, 4, 1, 1), k=rng.randint(1, 2))]
        rng.shuffle(statuses)
        for status in statuses:
            orders[f"W{next(ids)}"] = _order(rng, user_id, users[user_id], status, products)
    return {"users": users, "orders": orders, "products": products}


def _products(rng: Random) -> dict[str, Any]:
    ids = iter(numbers(rng, len(PRODUCTS) * VARIANTS, 3))
    products = {}
    for name in PRODUCTS:
        options = rng.sample(OPTIONS, VARIANTS)
        prices = rng.sample(range(5, 100), VARIANTS)
        sold_out = rng.randrange(VARIANTS) if rng.random() < 0.6 else -1
        products[name] = {
            "variants": {
                f"I{next(ids)}": {"option": option, "price": price, "stock": 0 if place == sold_out else rng.randint(1, 9)}
                for place, (option, price) in enumerate(zip(options, prices, strict=True))
            }
        }
    return products


def _user(rng: Random, name: str, zip_code: str, cards: Any) -> dict[str, Any]:
    kinds = ["card", "gift", *(["card"] if rng.random() < 0.5 else [])]
    payments = {f"{'C' if kind == 'card' else 'G'}{next(cards)}": kind for kind in kinds}
    balances = {payment: rng.randint(10, 180) for payment, kind in payments.items() if kind == "gift"}
    return {"name": name, "zip": zip_code, "payments": payments, "balances": balances}


def _order(rng: Random, user_id: str, user: dict[str, Any], status: str, products: dict[str, Any]) -> dict[str, Any]:
    items = []
    for product in rng.sample(PRODUCTS, rng.choice((1, 1, 2))):
        item_id = rng.choice(list(products[product]["variants"]))
        variant = products[product]["variants"][item_id]
        items.append({"item_id": item_id, "product": product, "option": variant["option"], "price": variant["price"]})
    paid = rng.choice(list(user["payments"]))
    order: dict[str, Any] = {"user_id": user_id, "status": status, "items": items, "paid": paid, "address": address(rng)}
    if status in ("pending", "delivered") and rng.random() < 0.2:
        order["changed"] = True
    return order
