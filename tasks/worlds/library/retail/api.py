"""The shop's tools. The API enforces status gates, stock and balances; who asks, a yes, and refunds are the policy's part."""

from __future__ import annotations

from typing import Any, Literal

from tasks.worlds.api.state import Row, State
from tasks.worlds.api.tools import Refused, end, read, write

Reason = Literal["no_longer_needed", "ordered_by_mistake"]


def total(order: Row) -> int:
    """What an order costs."""
    return sum(item["price"] for item in order["items"])


class Tools:
    """The tools of the retail world over its tables."""

    def __init__(self, db: State) -> None:
        self.db = db

    def _order(self, order_id: str, status: str = "") -> Row:
        order = self.db.get("orders", order_id)
        if order is None:
            raise Refused(f"no order {order_id}")
        if status and order["status"] != status:
            raise Refused(f"order {order_id} is {order['status']}")
        return order

    def _item(self, order: Row, order_id: str, item_id: str) -> Row:
        for item in order["items"]:
            if item["item_id"] == item_id and not item.get("returned"):
                return Row(item)
        raise Refused(f"no item {item_id} in order {order_id}")

    def _payment(self, order: Row, payment_id: str) -> str:
        user = self.db.get("users", order["user_id"])
        if user is None or payment_id not in user["payments"]:
            raise Refused(f"no payment {payment_id}")
        return str(user["payments"][payment_id])

    @read(produces=("user_id",))
    def find_user(self, name: str, zip: str) -> dict[str, Any]:
        """Find a customer by full name and zip code.

        Args:
            name: First and last name.
            zip: Zip code of five digits.
        """
        for user_id in self.db.find("users", name=name, zip=zip):
            return {"user_id": user_id}
        raise Refused("no such user")

    @read(produces=("order_id", "payment_id"))
    def get_user(self, user_id: str) -> dict[str, Any]:
        """Orders and payments of a customer, with the balance of gift cards.

        Args:
            user_id: The customer's id, such as U127.
        """
        user = self.db.get("users", user_id)
        if user is None:
            raise Refused(f"no user {user_id}")
        payments = {
            payment: f"gift {user['balances'][payment]}" if kind == "gift" else kind for payment, kind in user["payments"].items()
        }
        return {"orders": self.db.find("orders", user_id=user_id), "payments": payments}

    @read(produces=("item_id", "product", "payment_id", "status"))
    def get_order(self, order_id: str) -> dict[str, Any]:
        """Owner, status, items, total and payment of an order.

        Args:
            order_id: The order's id, such as W4821.
        """
        order = self._order(order_id)
        items = {
            item["item_id"]: f"{item['option']} {item['product']} {item['price']}"
            for item in order["items"]
            if not item.get("returned")
        }
        answer = {
            "user_id": order["user_id"],
            "status": order["status"],
            "items": items,
            "total": total(order),
            "paid": order["paid"],
        }
        return {**answer, "changed": True} if order.get("changed") else answer

    @read(produces=("new_item_id",))
    def get_product(self, product: str) -> dict[str, str]:
        """Variants of a product: item id to option and price, and whether it is sold out.

        Args:
            product: The product's name, such as mug.
        """
        row = self.db.get("products", product)
        if row is None:
            raise Refused(f"no product {product}")
        return {
            item_id: f"{variant['option']} {variant['price']}" + ("" if variant["stock"] else " sold out")
            for item_id, variant in row["variants"].items()
        }

    @write(consumes=("order_id", "status"))
    def cancel_order(self, order_id: str, reason: Reason) -> dict[str, Any]:
        """Cancel a pending order.

        Args:
            order_id: The order's id.
            reason: Why the customer cancels.
        """
        self._order(order_id, "pending")
        self.db.update("orders", order_id, status="cancelled", reason=reason)
        return {"ok": True}

    @write(consumes=("order_id", "status"))
    def change_address(self, order_id: str, address: str) -> dict[str, Any]:
        """Send a pending order to another address.

        Args:
            order_id: The order's id.
            address: The new address.
        """
        self._order(order_id, "pending")
        if not address.strip():
            raise Refused("the address is empty")
        self.db.update("orders", order_id, address=address)
        return {"ok": True}

    @write(consumes=("order_id", "payment_id"))
    def change_payment(self, order_id: str, payment_id: str) -> dict[str, Any]:
        """Charge a pending order to another payment of the customer.

        Args:
            order_id: The order's id.
            payment_id: The payment's id, such as C71 or G55.
        """
        order = self._order(order_id, "pending")
        if self._payment(order, payment_id) == "gift":
            user = self.db.get("users", order["user_id"])
            if user is not None and user["balances"][payment_id] < total(order):
                raise Refused("the balance is too low")
        self.db.update("orders", order_id, paid=payment_id)
        return {"ok": True}

    @write(consumes=("order_id", "item_id", "new_item_id"))
    def change_item(self, order_id: str, item_id: str, new_item_id: str) -> dict[str, Any]:
        """Change an item of a pending order to another variant; once per order.

        Args:
            order_id: The order's id.
            item_id: The item to change.
            new_item_id: The variant to get instead.
        """
        return self._swap(order_id, item_id, new_item_id, "pending")

    @write(consumes=("order_id", "item_id", "new_item_id"))
    def exchange_item(self, order_id: str, item_id: str, new_item_id: str) -> dict[str, Any]:
        """Exchange an item of a delivered order for another variant; once per order.

        Args:
            order_id: The order's id.
            item_id: The item to send back.
            new_item_id: The variant to get instead.
        """
        return self._swap(order_id, item_id, new_item_id, "delivered")

    def _swap(self, order_id: str, item_id: str, new_item_id: str, status: str) -> dict[str, Any]:
        order = self._order(order_id, status)
        if order.get("changed"):
            raise Refused("items can be changed only once")
        item = self._item(order, order_id, item_id)
        product = self.db.get("products", item["product"])
        variant = product["variants"].get(new_item_id) if product else None
        if variant is None:
            raise Refused(f"{new_item_id} is no {item['product']}")
        if not variant["stock"]:
            raise Refused(f"{new_item_id} is out of stock")
        new = {"item_id": new_item_id, "product": item["product"], "option": variant["option"], "price": variant["price"]}
        items = [new if old["item_id"] == item_id else old for old in order["items"]]
        self.db.update("orders", order_id, items=items, changed=True)
        return {"price": variant["price"]}

    @write(consumes=("order_id", "item_id", "payment_id"))
    def return_item(self, order_id: str, item_id: str, payment_id: str) -> dict[str, Any]:
        """Return an item of a delivered order and refund its price.

        Args:
            order_id: The order's id.
            item_id: The item to send back.
            payment_id: Where the refund goes.
        """
        order = self._order(order_id, "delivered")
        item = self._item(order, order_id, item_id)
        self._payment(order, payment_id)
        items = [{**old, "returned": True, "refund_to": payment_id} if old["item_id"] == item_id else old for old in order["items"]]
        self.db.update("orders", order_id, items=items)
        return {"refund": item["price"]}

    @end(consumes=("status",))
    def transfer_to_human(self, reason: Literal["damaged", "lost"]) -> dict[str, Any]:
        """Hand the conversation over to a person, which ends it.

        Args:
            reason: What happened to the parcel.
        """
        return {"ok": True}
