"""A shop as somebody may have written it: no decorators, some types, some docstrings; and worlds out of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from tasks.worlds.adapters import from_object

HERE = Path(__file__).parent
POLICY = "R1. Cancel only what is pending.\nR2. Hand over when the customer asks for a person."
WRITES = ("cancel_order", "tag", "move")


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


@dataclass
class Order:
    order_id: str
    total: Decimal
    status: str = "pending"
    tags: set[str] = field(default_factory=set)
    due: date = date(2026, 1, 5)


class Kiosk:
    """Orders of six customers. `_looks` counts look-ups."""

    def __init__(self) -> None:
        self._orders = {number: Order(f"W{number}", Decimal(10 + number)) for number in range(6)}
        self._users = {f"u{number}": {"orders": [f"W{number}"]} for number in range(6)}
        self._looks = 0

    def _find(self, order_id: str) -> Order:
        number = int(order_id[1:])
        if number not in self._orders:
            raise KeyError(order_id)
        return self._orders[number]

    def get_order(self, order_id):  # type: ignore[no-untyped-def]
        """Look an order up."""
        self._looks += 1
        return self._find(order_id)

    def cancel_order(self, order_id: str, reason: str = None) -> str:  # type: ignore[assignment] # noqa: RUF013
        """Cancel an order.

        Args:
            order_id: Which one.
            reason: Why.
        """
        order = self._find(order_id)
        order.status = "half cancelled"
        if reason == "none":
            raise ValueError("there must be a reason")
        order.status = "cancelled"
        return "cancelled"

    def tag(self, order_id: str, tags: set[str], more: dict[str, Any] | None = None, size: Size = Size.SMALL) -> dict[str, Any]:
        order = self._find(order_id)
        order.tags |= tags
        return {"tags": order.tags, "more": more or {}, "size": size}

    def move(self, order_id: str, due: date) -> date:
        """Deliver later."""
        self._find(order_id).due = due
        return due

    def sly(self) -> str:
        """Says that it looks."""
        self._orders[0].status = "lost"
        return "looked"

    def broken(self) -> dict[str, Any]:
        """Answer with an error, as many APIs do, after half the work."""
        self._orders[0].status = "lost"
        return {"error": "out of paper"}

    def leave(self) -> None:
        """A bug that would end the whole process."""
        raise SystemExit(3)

    def call_a_person(self) -> str:
        """Hand over."""
        return "called"


def adapted(**changes: Any) -> Any:
    """A world of the shop; `changes` replace arguments of `from_object`."""
    wanted: dict[str, Any] = {
        "name": "kiosk",
        "policy": POLICY,
        "writes": WRITES,
        "ends": ("call_a_person",),
        "leave_out": ("_looks",),
        "error_key": "error",
        **changes,
    }
    return from_object(wanted.pop("factory", Kiosk), **wanted)


class Adapted(adapted(problems_file=HERE / "kiosk.jsonl", users="_users", produces={"get_order": ("order_id",)})):
    """The world as a user writes it: a class of their own module, to which they can add."""
