"""The library's scripted agent: one plan per kind of wish, following policy.md rule by rule, on messages alone.

It teaches the first model, so it has to be right: `cairn world check` plays it against the scripted human. A plan reads as if calls
were answered at once (`tasks.worlds.api.scripts.agent`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.contract.scripts import COMMON_ERRORS
from tasks.worlds.api.scripts.agent import VISIBLE as COMMON_VISIBLE
from tasks.worlds.api.scripts.agent import AgentScript, Plan, agent
from tasks.worlds.library.library.phrases import PHRASES
from tasks.worlds.library.library.rules import MOST_RENEWALS, MOST_WEEKS

WRITES = ("renew_loan", "pay_fee", "reserve_title")
Slots = dict[str, str]


def _loan(script: AgentScript, slots: Slots) -> tuple[str, dict[str, Any], str]:
    """(loan id, its row, refusal): R2 and unknown ids are settled here."""
    return script.own(
        slots,
        "loan_id",
        "get_loan",
        question="Which loan is it?",
        not_found="I cannot find loan {loan_id}",
        foreign="loan {loan_id} belongs to another account",
    )


def renew(script: AgentScript, slots: Slots) -> str:
    """Renew a loan, unless R5, R6 or R7 forbid it."""
    loan_id, loan, refusal = _loan(script, slots)
    weeks = int(slots["weeks"])
    if refusal:
        return refusal
    if script.forbids(loan["status"] != "out"):
        return script.refusal(f"loan {loan_id} is {loan['status']}")
    if script.forbids(loan["renewals"] >= MOST_RENEWALS):
        return script.refusal("a loan can be renewed twice at most")
    if script.forbids(weeks > MOST_WEEKS):
        return script.refusal("a renewal is for three weeks at most")
    script.write("renew_loan", f"I will renew loan {loan_id} for {weeks} weeks.", loan_id=loan_id, weeks=weeks)
    return "Done."


def pay(script: AgentScript, slots: Slots) -> str:
    """Pay the fee of a loan (R2)."""
    loan_id, _, refusal = _loan(script, slots)
    if refusal:
        return refusal
    answer = script.write("pay_fee", f"I will take the fee of loan {loan_id} from your account.", loan_id=loan_id)
    return f"Done, the fee was {script.amount(answer['paid'])}." if answer else "Done."


def reserve(script: AgentScript, slots: Slots) -> str:
    """Reserve a title at a branch (R8)."""
    title, branch = script.slot(slots, "title", "Which title is it?"), slots["branch"]
    row = script.read("get_title", title=title)
    if script.forbids(row["free"] > 0):
        return script.refusal(f"{title} is free on the shelf")
    summary = f"I will reserve {title} at the {branch} branch."
    script.write("reserve_title", summary, user_id=script.person(), title=title, branch=branch)
    return "Done."


def status(script: AgentScript, slots: Slots) -> str:
    """Tell how a loan stands (R2)."""
    loan_id, loan, refusal = _loan(script, slots)
    return refusal or f"Loan {loan_id} is {loan['status']}."


def copies(script: AgentScript, slots: Slots) -> str:
    """Needs no account, but R1 all the same."""
    free = script.read("get_title", title=slots["title"])["free"]
    return f"The number of free copies is {script.amount(free)}."


def trouble(script: AgentScript, slots: Slots) -> str:
    """Hand a lost or damaged book over to a person (R9)."""
    _, _, refusal = _loan(script, slots)
    if refusal:
        return refusal
    script.hand_over(reason=slots["trouble"])


PLANS: Mapping[str, Plan] = {
    "renew": renew,
    "pay": pay,
    "reserve": reserve,
    "status": status,
    "copies": copies,
    "trouble": trouble,
}
ERRORS = {name: about for name, about in COMMON_ERRORS.items() if name != "ignores_price"}
"""The mistakes that this teacher can be told to make, for practice (`roles.agent.errors`): there are no prices to ignore here."""
VISIBLE = COMMON_VISIBLE & set(ERRORS)
AGENT = agent(PHRASES, PLANS, WRITES, ERRORS)
