"""A shop of one page, as a world for the report's tests: orders that can be cancelled while they are pending."""

from __future__ import annotations

from typing import Any

from tasks.worlds.api.state import State
from tasks.worlds.api.tools import Refused, end, read, write


class Shop:
    """Three tools and one rule."""

    NAME = "shop"
    POLICY = "R1. Hand over to a person when an order was delivered."

    def __init__(self, db: State) -> None:
        self.db = db

    @staticmethod
    def tables(size: int, seed: int) -> dict[str, dict[str, dict[str, Any]]]:
        """size users, with two orders each; every fourth user's orders were delivered."""
        orders = {
            f"W{1000 + 2 * user + which}": {
                "user": f"u{user}",
                "status": "delivered" if user % 4 == 3 else "pending",
                "total": 10.0 + user + which + seed % 2,
            }
            for user in range(size)
            for which in range(2)
        }
        return {"users": {f"u{user}": {"name": f"User {user}"} for user in range(size)}, "orders": orders}

    @read()
    def get_order(self, order_id: str) -> dict[str, Any]:
        """Look an order up.

        Args:
            order_id: such as W1000.
        """
        order = self.db.get("orders", order_id)
        if order is None:
            raise Refused(f"no order {order_id!r}")
        return dict(order)

    @write()
    def cancel_order(self, order_id: str) -> str:
        """Cancel a pending order.

        Args:
            order_id: such as W1000.
        """
        if self.get_order(order_id)["status"] != "pending":
            raise Refused(f"order {order_id!r} is not pending")
        self.db.update("orders", order_id, status="cancelled")
        return "cancelled"

    @end()
    def hand_over(self, why: str) -> str:
        """Hand the customer over to a person.

        Args:
            why: in a few words.
        """
        return "transferred"


class Kiosk(Shop):
    """The same shop under another name: a second world."""

    NAME = "kiosk"
