"""The library's scripted agent: one plan per kind of wish, following policy.md rule by rule, on messages alone.

It teaches the first model, so it has to be right: `cairn world check` plays it against the scripted human. A plan reads as if calls
were answered at once (`tasks.worlds.api.scripts.agent`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flows.templates.world.phrases import PHRASES
from flows.templates.world.rules import MOST_RENEWALS, MOST_WEEKS
from tasks.worlds.api.scripts import agent as desks
from tasks.worlds.api.scripts.agent import Desk, Plan, agent

WRITES = ("renew_loan", "pay_fee", "reserve_title")
Slots = dict[str, str]


def _loan(desk: Desk, slots: Slots) -> tuple[str, dict[str, Any], str]:
    """(loan id, its row, refusal): R2 and unknown ids are settled here."""
    return desk.own(
        slots,
        "loan_id",
        "get_loan",
        question="Which loan is it?",
        not_found="I cannot find loan {loan_id}",
        foreign="loan {loan_id} belongs to another account",
    )


def renew(desk: Desk, slots: Slots) -> str:
    """Renew a loan, unless R5, R6 or R7 forbid it."""
    loan_id, loan, refusal = _loan(desk, slots)
    weeks = int(slots["weeks"])
    if refusal:
        return refusal
    if desk.forbids(loan["status"] != "out"):
        return desk.refusal(f"loan {loan_id} is {loan['status']}")
    if desk.forbids(loan["renewals"] >= MOST_RENEWALS):
        return desk.refusal("a loan can be renewed twice at most")
    if desk.forbids(weeks > MOST_WEEKS):
        return desk.refusal("a renewal is for three weeks at most")
    desk.write("renew_loan", f"I will renew loan {loan_id} for {weeks} weeks.", loan_id=loan_id, weeks=weeks)
    return "Done."


def pay(desk: Desk, slots: Slots) -> str:
    """Pay the fee of a loan (R2)."""
    loan_id, _, refusal = _loan(desk, slots)
    if refusal:
        return refusal
    answer = desk.write("pay_fee", f"I will take the fee of loan {loan_id} from your account.", loan_id=loan_id)
    return f"Done, the fee was {desk.amount(answer['paid'])}." if answer else "Done."


def reserve(desk: Desk, slots: Slots) -> str:
    """Reserve a title at a branch (R8)."""
    title, branch = desk.slot(slots, "title", "Which title is it?"), slots["branch"]
    row = desk.read("get_title", title=title)
    if desk.forbids(row["free"] > 0):
        return desk.refusal(f"{title} is free on the shelf")
    summary = f"I will reserve {title} at the {branch} branch."
    desk.write("reserve_title", summary, user_id=desk.user()["user_id"], title=title, branch=branch)
    return "Done."


def status(desk: Desk, slots: Slots) -> str:
    """Tell how a loan stands (R2)."""
    loan_id, loan, refusal = _loan(desk, slots)
    return refusal or f"Loan {loan_id} is {loan['status']}."


def copies(desk: Desk, slots: Slots) -> str:
    """Needs no account, but R1 all the same."""
    free = desk.read("get_title", title=slots["title"])["free"]
    return f"The number of free copies is {desk.amount(free)}."


def trouble(desk: Desk, slots: Slots) -> str:
    """Hand a lost or damaged book over to a person (R9)."""
    _, _, refusal = _loan(desk, slots)
    if refusal:
        return refusal
    desk.hand_over(reason=slots["trouble"])


PLANS: Mapping[str, Plan] = {
    "renew": renew,
    "pay": pay,
    "reserve": reserve,
    "status": status,
    "copies": copies,
    "trouble": trouble,
}
ERRORS = {name: about for name, about in desks.COMMON_ERRORS.items() if name != "ignores_price"}
"""The mistakes that this teacher can be told to make, for practice (`roles.agent.errors`): there are no prices to ignore here."""
VISIBLE = desks.VISIBLE & set(ERRORS)
AGENT = agent(PHRASES, PLANS, WRITES, ERRORS)
