"""The library's problems: from one member's rows to a draft with ground truth, in a family or along a walk of tools.

A maker draws one wish that the member's rows allow, and says which calls fulfil it. `tasks.worlds.api.scripts.drafting` makes
problems of one or several wishes from them, with an intent for the scripted human and an instruction for a human that is a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from tasks.worlds.api.scripts.drafting import Case, Fits, Maker, Single, Step, call, forbidden, foreign, look_ups, proposer
from tasks.worlds.api.state import State
from tasks.worlds.library.library.phrases import PHRASES
from tasks.worlds.library.library.rules import HELD_OUT, HELD_OUT_RULES, MOST_RENEWALS, MOST_WEEKS

FAMILIES = ("one_write", "two_writes", "forbidden", "information", "hand_over")
WRITE_FAMILIES = ("one_write", "two_writes")
PERSONAS = ("polite: a retired teacher", "friendly: a student", "curt: a busy engineer", "worried: a first-time member")
TOOL_OF = {"renew": "renew_loan", "pay": "pay_fee", "reserve": "reserve_title"}
"""Kind of wish -> the tool that writes it."""
INFORMS = {"get_loan": ("status",), "get_title": ("copies",)}
"""Look-up -> the questions that it answers."""


def context(db: State, user_id: str, others: Sequence[str], rng: Random) -> dict[str, Any]:
    """The member, their loans, all titles, and one loan of somebody else."""
    return {
        "user": db.get("users", user_id),
        "loans": {loan_id: db.get("loans", loan_id) for loan_id in db.find("loans", user_id=user_id)},
        "titles": dict(db.rows("titles")),
        "foreign_loan": foreign(db.find, "loans", others, rng),
    }


def _look(loan_id: str) -> dict[str, Any]:
    return call("get_loan", loan_id=loan_id)


def _renewable(row: Mapping[str, Any]) -> bool:
    return bool(row["status"] == "out" and row["renewals"] < MOST_RENEWALS)


# --- one wish each: Step, or None when the rows do not allow it ---


def _renew(case: Case, fits: Fits = _renewable, weeks: Sequence[int] = (1, 2, 3)) -> Step | None:
    loan_id, _ = case.choose("loans", fits)
    return _renewal(loan_id, case.rng.choice(weeks)) if loan_id else None


def _renewal(loan_id: str, weeks: int) -> Step:
    write = call("renew_loan", loan_id=loan_id) if weeks == 2 else call("renew_loan", loan_id=loan_id, weeks=weeks)
    return Step("renew", {"loan_id": loan_id, "weeks": str(weeks)}, (loan_id, str(weeks)), (_look(loan_id), write))


def _pay(case: Case) -> Step | None:
    loan_id, row = case.choose("loans", lambda row: bool(row["fee"]))
    if not loan_id:
        return None
    return Step("pay", {"loan_id": loan_id}, (loan_id,), (_look(loan_id), call("pay_fee", loan_id=loan_id)), (str(row["fee"]),))


def _reserve(case: Case, free: bool = False) -> Step | None:
    title, _ = case.choose("titles", lambda row: bool(row["free"]) == free)
    if not title:
        return None
    branch = case.rng.choice(("north", "south"))
    write = call("reserve_title", user_id=case.context["user_id"], title=title, branch=branch)
    return Step("reserve", {"title": title, "branch": branch}, (title, branch), (call("get_title", title=title), write))


WRITES: Mapping[str, Maker] = {"renew": _renew, "pay": _pay, "reserve": _reserve}


def _information(case: Case, kinds: Sequence[str]) -> Step | None:
    kind = case.rng.choice(tuple(kinds) or ("status", "copies"))
    if kind == "copies":
        title, row = case.choose("titles", lambda row: True)
        look = call("get_title", title=title)
        return Step(kind, {"title": title}, (), (look,), (str(row["free"]),), (look,))
    loan_id, row = case.choose("loans", lambda row: True)
    return Step(kind, {"loan_id": loan_id}, (), (_look(loan_id),), (row["status"],), (_look(loan_id),))


def _trouble(case: Case, kinds: Sequence[str]) -> Step | None:
    """R9: a lost or damaged book."""
    loan_id, _ = case.choose("loans", lambda row: row["status"] != "returned")
    trouble = case.rng.choice(("lost", "damaged"))
    look, over = _look(loan_id), call("transfer_to_human", reason=trouble)
    return Step("trouble", {"loan_id": loan_id, "trouble": trouble}, (), (look, over), (), (look, over))


# --- what a rule forbids: the look-up that shows it, and the reason that must be told ---


def _foreign(case: Case) -> Step | None:
    loan_id = case.context["foreign_loan"]
    return look_ups(_renewal(loan_id, 2), "R2", "another account") if loan_id else None


def _closed(case: Case) -> Step | None:
    step = _renew(case, lambda row: row["status"] != "out")
    return look_ups(step, "R5", case.context["loans"][step.slots["loan_id"]]["status"]) if step else None


_FORBIDDEN: Mapping[str, Maker] = {
    "R2": _foreign,
    "R5": _closed,
    "R6": lambda case: look_ups(_renew(case, lambda row: row["status"] == "out" and not _renewable(row)), "R6", "twice"),
    "R7": lambda case: look_ups(_renew(case, weeks=(MOST_WEEKS + 1, MOST_WEEKS + 2)), "R7", "three weeks"),
    "R8": lambda case: look_ups(_reserve(case, free=True), "R8", "free on the shelf"),
}
"""The rule that forbids -> a wish that it forbids."""

_SINGLES: Mapping[str, Single] = {
    "forbidden": lambda case, kinds: forbidden(case, _FORBIDDEN, HELD_OUT_RULES),
    "information": _information,
    "hand_over": _trouble,
}

propose = proposer(PHRASES, FAMILIES, WRITES, TOOL_OF, _SINGLES, INFORMS, HELD_OUT)
