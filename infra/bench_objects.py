"""What a world out of plain Python objects costs, with as many rows as tau2-bench's retail, in one dict in an attribute.

The 1,550 rows are made here, of the package's shapes, 1.2 MB of JSON; with `--db FILE` they are the file's, such as the package's own
2.8 MB (`make test-tau2` fetches it). Medians in microseconds of the thread's own time, since the machine may be busy."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from infra.bench_lines import Line
from tasks.worlds.adapters import from_object
from tasks.worlds.api.runtime import World

CALL, RESET, HASH = 5000.0, 1000.0, 1000.0
"""The most that a call, a reset and a hash may take, in microseconds."""
USERS, ORDERS, PRODUCTS = 500, 1000, 50


def made() -> dict[str, Any]:
    """Tables of the package's shapes, with as many rows."""
    rng = Random(0)

    def words(count: int) -> str:
        return " ".join(rng.choice(("red", "large", "cotton", "steel", "travel", "garden", "silent", "bright")) for _ in range(count))

    address = {"address1": "1 Oak Street", "address2": "Suite 2", "city": "Austin", "country": "USA", "state": "TX", "zip": "78701"}
    users = {
        f"user_{n}": {
            "user_id": f"user_{n}",
            "name": {"first_name": words(1), "last_name": words(1)},
            "address": dict(address),
            "email": f"user{n}@example.com",
            "payment_methods": {f"card_{n}": {"source": "credit_card", "id": f"card_{n}", "brand": "visa", "last_four": "1234"}},
            "orders": [f"#W{n}", f"#W{n + USERS}"],
        }
        for n in range(USERS)
    }
    orders = {
        f"#W{n}": {
            "order_id": f"#W{n}",
            "user_id": f"user_{n % USERS}",
            "address": dict(address),
            "items": [
                {
                    "name": words(2),
                    "product_id": str(rng.randrange(10**9)),
                    "item_id": str(rng.randrange(10**9)),
                    "price": round(rng.uniform(5, 900), 2),
                    "options": {"colour": words(1), "size": words(1), "material": words(1)},
                }
                for _ in range(1 + n % 4)
            ],
            "status": "pending",
            "fulfillments": [{"tracking_id": [str(n)], "item_ids": [str(rng.randrange(10**9)) for _ in range(1 + n % 4)]}],
            "payment_history": [{"transaction_type": "payment", "amount": 100.5, "payment_method_id": f"card_{n % USERS}"}],
            "cancel_reason": None,
        }
        for n in range(ORDERS)
    }
    products = {
        str(n): {
            "name": words(2),
            "product_id": str(n),
            "variants": {
                f"{n}{v}": {"item_id": f"{n}{v}", "options": {"colour": words(1), "size": words(1)}, "available": True, "price": 9.5}
                for v in range(24)
            },
        }
        for n in range(PRODUCTS)
    }
    return {"products": products, "users": users, "orders": orders}


class Retail:
    """tau2-like tools over one dict."""

    def __init__(self, text: str) -> None:
        self.db = json.loads(text)

    def find_by_email(self, email: str) -> str:
        """Find a user by looking at every one."""
        return next(key for key, user in self.db["users"].items() if user["email"] == email)

    def get_order(self, order_id: str) -> dict[str, Any]:
        """Look an order up."""
        order: dict[str, Any] = self.db["orders"][order_id]
        return order

    def cancel_order(self, order_id: str, reason: str) -> dict[str, Any]:
        """Cancel an order and pay it back."""
        order: dict[str, Any] = self.db["orders"][order_id]
        order["payment_history"].extend([{**paid, "transaction_type": "refund"} for paid in order["payment_history"]])
        order.update(status="cancelled", cancel_reason=reason)
        return order


def _median(work: Callable[[Any], Any], rounds: int, before: Callable[[Any], Any] = lambda number: None) -> float:
    times = []
    for number in range(rounds):
        before(number)
        start = time.thread_time_ns()
        work(number)
        times.append(time.thread_time_ns() - start)
    return statistics.median(times) / 1000


def object_lines(rounds: int, db: Path | None = None) -> list[Line]:
    """The figures. db: a JSON file with users (with "email") and orders."""
    text = db.read_text(encoding="utf-8") if db else json.dumps(made())
    world = World.build(from_object(lambda: Retail(text), name="retail", policy="R1.", writes=("cancel_order",)), 1, 0).fork()
    tables = json.loads(text)
    orders, last = list(tables["orders"]), list(tables["users"].values())[-1]["email"]
    what = f"objects, {sum(map(len, tables.values())):,} rows of {len(text) / 1e6:.1f} MB"
    world.state_hash()

    def read(number: int) -> None:
        world.call("get_order", {"order_id": orders[number % len(orders)]})

    def write(number: int) -> None:
        world.call("cancel_order", {"order_id": orders[number % 10], "reason": f"reason {number}"})

    def fresh(number: int) -> None:
        world.reset()
        write(number)

    read(0)
    lines = [
        Line(f"{what}: call that reads a row", _median(read, rounds), CALL, "45000 to 290000 before"),
        Line(f"{what}: call that looks at every user", _median(lambda _: world.call("find_by_email", {"email": last}), 50), CALL),
        Line(f"{what}: call that writes a row", _median(fresh, rounds), CALL, "45000 to 290000 before"),
        Line(f"{what}: reset", _median(lambda _: world.reset(), rounds, write), RESET),
    ]
    world.reset()
    return [*lines, Line(f"{what}: state hash after a write", _median(lambda _: world.state_hash(), rounds, fresh), HASH)]
