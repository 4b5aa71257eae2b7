"""The library's policy as tests: what one write breaks, and the two lists of predicates.

A predicate is named after its rule and returns None when the rule holds, else why it does not. Rules without one (R10) are left
to the grading and to judges.
"""

from __future__ import annotations

from tasks.contract.problem import Action
from tasks.worlds.api import conduct
from tasks.worlds.api.state import State

WRITE_RULES = ("R2", "R5", "R6", "R7", "R8")
MOST_RENEWALS, MOST_WEEKS = 2, 3
"""R6 and R7."""
HELD_OUT_RULES = ("R6",)
"""Rules that only test problems turn on; () when there is nothing to hold out."""
HELD_OUT = (frozenset({"pay_fee", "reserve_title"}),)
"""Pairs of writes that only test problems combine."""


def check(state: State, action: Action, user_id: str) -> dict[str, str]:
    """The rules that one write would break in this state: rule -> reason. An id that does not exist breaks none."""
    arguments, found = action.arguments, {}
    if action.name == "reserve_title":
        title = state.get("titles", arguments["title"])
        if arguments["user_id"] != user_id:
            found["R2"] = f"{arguments['user_id']} is another account"
        if title and title["free"]:
            found["R8"] = f"{title['free']} copies are free"
        return found
    loan = state.get("loans", arguments["loan_id"])
    if loan is None:
        return {}
    if loan["user_id"] != user_id:
        found["R2"] = f"loan {arguments['loan_id']} belongs to another account"
    if action.name == "renew_loan":
        if loan["status"] != "out":
            found["R5"] = f"loan {arguments['loan_id']} is {loan['status']}"
        if loan["renewals"] >= MOST_RENEWALS:
            found["R6"] = f"it was renewed {loan['renewals']} times"
        if arguments.get("weeks", 2) > MOST_WEEKS:
            found["R7"] = f"{arguments['weeks']} weeks"
    return found


BLUEPRINT_PREDICATES: dict[str, conduct.BlueprintPredicate] = {
    "R1": conduct.truth_authenticated,
    **conduct.blueprint_rules(WRITE_RULES, check),
    "R9": conduct.truth_looked_up("get_loan"),
    "G1": conduct.gated,
    "S1": conduct.held_out(HELD_OUT, HELD_OUT_RULES),
}
"""G1: doing nothing must fail. S1: what is kept for test problems stays out of the other splits."""

TRAJECTORY_PREDICATES: dict[str, conduct.TrajectoryPredicate] = {
    "R1": conduct.authenticated,
    "R3": conduct.confirmed,
    "R4": conduct.one_call_per_turn,
    **conduct.trajectory_rules(WRITE_RULES, check),
    "R9": conduct.looked_up("get_loan"),
    "R11": conduct.lean,
}

EVERY_WRITE = ("R1", "R2", "R3", "R4")
GUARDS = {
    "renew_loan": (*EVERY_WRITE, "R5", "R6", "R7"),
    "pay_fee": EVERY_WRITE,
    "reserve_title": (*EVERY_WRITE, "R8"),
}
"""The predicates that judge each write tool (`cairn serve --with-tools`)."""
