"""The shop's scripted agent: one plan per kind of wish, following policy.md rule by rule, on messages alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.contract.scripts import COMMON_ERRORS
from tasks.worlds.api.scripts.agent import AgentScript, Plan, agent
from tasks.worlds.library.retail import agent_phrases as say
from tasks.worlds.library.retail.problems import TOOL_OF
from tasks.worlds.library.retail.user_phrases import PHRASES

Slots = dict[str, str]


def _order(script: AgentScript, slots: Slots) -> tuple[str, dict[str, Any]]:
    """(order id, its row): R2 and unknown ids are settled here."""
    return script.own(slots, "order_id", "get_order")


def _gated(script: AgentScript, slots: Slots, status: str) -> tuple[str, dict[str, Any]]:
    """An order with the status that the wish needs (R5, R6)."""
    order_id, order = _order(script, slots)
    script.mind(order["status"] != status, say.WRONG_STATUS.format(order_id=order_id, status=order["status"]))
    return order_id, order


def _item(order: Mapping[str, Any], product: str) -> str:
    """Item id of a product in an order as the tool shows it, or ""."""
    return next((item_id for item_id, text in order["items"].items() if text.split()[1] == product), "")


def _payment(script: AgentScript, kind: str, other_than: str = "") -> str:
    """The customer's first payment of a kind."""
    payments = script.read("get_user", user_id=script.person())["payments"]
    return next((pay for pay, text in payments.items() if text.split()[0] == kind and pay != other_than), "")


def cancel(script: AgentScript, slots: Slots) -> str:
    """Cancel a pending order (R5)."""
    order_id, _ = _gated(script, slots, "pending")
    script.write("cancel_order", say.CANCEL.format(order_id=order_id), order_id=order_id, reason=slots["reason"])
    return say.DONE


def address(script: AgentScript, slots: Slots) -> str:
    """Change the address of a pending order (R5)."""
    order_id, _ = _gated(script, slots, "pending")
    summary = say.ADDRESS.format(order_id=order_id, address=slots["address"])
    script.write("change_address", summary, order_id=order_id, address=slots["address"])
    return say.DONE


def payment(script: AgentScript, slots: Slots) -> str:
    """Change how a pending order is paid (R5, R10)."""
    order_id, order = _gated(script, slots, "pending")
    payment_id = _payment(script, slots["payment"], other_than=order["paid"])
    if slots["payment"] == "gift":
        payments = script.read("get_user", user_id=script.person())["payments"]
        script.mind(int(payments[payment_id].split()[1]) < order["total"], say.LOW_BALANCE)
    summary = say.PAYMENT.format(order_id=order_id, payment_id=payment_id)
    script.write("change_payment", summary, order_id=order_id, payment_id=payment_id)
    return say.DONE


def _swap(script: AgentScript, slots: Slots, status: str, tool: str, phrase: str) -> str:
    """R5 or R6, R7, R9."""
    order_id, order = _gated(script, slots, status)
    script.mind(bool(order.get("changed")), say.ONLY_ONCE)
    product, option = slots["product"], slots["option"]
    item_id = _item(order, product)
    if not item_id:
        script.refuse(say.NO_ITEM.format(product=product, order_id=order_id))
    variants = script.read("get_product", product=product)
    new_item_id = _variant(script, variants, option)
    if not new_item_id:
        script.refuse(say.NO_VARIANT.format(option=option, product=product))
    found, _, *sold_out = variants[new_item_id].split()
    script.mind(bool(sold_out), say.SOLD_OUT.format(option=option, product=product))
    summary = phrase.format(product=product, item_id=item_id, order_id=order_id, option=found, new_item_id=new_item_id)
    answer = script.write(tool, summary, order_id=order_id, item_id=item_id, new_item_id=new_item_id)
    return say.SWAPPED.format(price=script.amount(answer["price"])) if answer else say.DONE


def _variant(script: AgentScript, variants: Mapping[str, str], option: str) -> str:
    """Item id of the wanted option; of the cheapest in stock when that is what was asked for."""
    if option != "cheapest":
        return next((item_id for item_id, text in variants.items() if text.split()[0] == option), "")
    in_stock = [item_id for item_id, text in variants.items() if not text.endswith("sold out")]
    if script.errs("ignores_price"):
        return in_stock[0]
    return min(in_stock, key=lambda item_id: int(variants[item_id].split()[1]))


def change(script: AgentScript, slots: Slots) -> str:
    """Change items of a pending order (R5, R7, R9)."""
    return _swap(script, slots, "pending", "change_item", say.CHANGE)


def exchange(script: AgentScript, slots: Slots) -> str:
    """Exchange items of a delivered order (R6, R7, R9)."""
    return _swap(script, slots, "delivered", "exchange_item", say.EXCHANGE)


def give_back(script: AgentScript, slots: Slots) -> str:
    """Return items of a delivered order (R6, R8)."""
    order_id, order = _gated(script, slots, "delivered")
    script.mind(slots["target"] == "card", say.REFUND_RULE)
    item_id = _item(order, slots["product"])
    if not item_id:
        script.refuse(say.NO_ITEM.format(product=slots["product"], order_id=order_id))
    target = order["paid"] if slots["target"] == "original" else _payment(script, slots["target"], other_than=order["paid"])
    summary = say.RETURN.format(product=slots["product"], item_id=item_id, order_id=order_id, payment_id=target)
    answer = script.write("return_item", summary, order_id=order_id, item_id=item_id, payment_id=target)
    return say.REFUNDED.format(price=script.amount(answer["refund"])) if answer else say.DONE


def total(script: AgentScript, slots: Slots) -> str:
    """Tell what an order costs (R2)."""
    _, order = _order(script, slots)
    return say.TOTAL.format(price=script.amount(order["total"]))


def status(script: AgentScript, slots: Slots) -> str:
    """Tell how an order stands (R2)."""
    order_id, order = _order(script, slots)
    return say.STATUS.format(order_id=order_id, status=order["status"])


def balance(script: AgentScript, slots: Slots) -> str:
    """The first gift card's."""
    payments = script.read("get_user", user_id=script.person())["payments"]
    found = next((text.split()[1] for text in payments.values() if text.startswith("gift")), "0")
    return say.BALANCE.format(price=script.amount(int(found)))


def price(script: AgentScript, slots: Slots) -> str:
    """The cheapest variant in stock."""
    variants = script.read("get_product", product=slots["product"])
    cost = int(variants[_variant(script, variants, "cheapest")].split()[1])
    return say.PRICE.format(product=slots["product"], price=script.amount(cost))


def trouble(script: AgentScript, slots: Slots) -> str:
    """Hand over to a person what only a person may do (R11)."""
    _order(script, slots)
    script.hand_over(reason=slots["trouble"])


PLANS: Mapping[str, Plan] = {
    "cancel": cancel,
    "address": address,
    "payment": payment,
    "change": change,
    "exchange": exchange,
    "return": give_back,
    "total": total,
    "status": status,
    "balance": balance,
    "price": price,
    "trouble": trouble,
}
ERRORS = COMMON_ERRORS
AGENT = agent(PHRASES, PLANS, tuple(TOOL_OF.values()), ERRORS)
