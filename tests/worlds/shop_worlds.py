"""Worlds over the shop at $SHOP_URL, where other processes find them too. Imported once that is set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tasks.worlds.adapters import from_openapi

URL = os.environ["SHOP_URL"]
ABOUT: dict[str, Any] = {
    "policy": "R1. Cancel only what is pending.",
    "operations": ("tag:orders", "search_orders"),
    "auth": {"bearer": "SHOP_TOKEN"},
    "reads": ("search_orders",),
    "state": "GET /admin/state",
    "leave_out": ("changed",),
    "users": "users",
}


class Undeclared(from_openapi(f"{URL}/openapi.json", URL, name="undeclared", **ABOUT)):  # type: ignore[misc]
    """Nobody said that it may be changed."""


class Declared(  # type: ignore[misc]
    from_openapi(
        f"{URL}/openapi.json",
        URL,
        name="declared",
        disposable=True,
        reset="POST /admin/reset",
        produces={"search_orders": ("order_id", "lines"), "get_order": ("user_id",)},
        problems_file=Path(__file__).with_name("shop.jsonl"),
        **ABOUT,
    )
):
    """It may be changed."""
