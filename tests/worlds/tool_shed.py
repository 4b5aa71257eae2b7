"""A tool shed without problems, phrases and scripts, once as a class with tables and once as plain objects: what a draft begins with."""

from __future__ import annotations

from random import Random
from typing import Any

from tasks.contract.context import seed_of
from tasks.worlds.adapters import from_object
from tasks.worlds.api.scripts.names import numbers, people
from tasks.worlds.api.state import State, Tables
from tasks.worlds.api.tools import Refused, end, read, write

POLICY = """# Tool shed

R1. Find the member by full name and zip code before anything else.
R2. Never touch a loan of another account.
R3. Before you change anything, say what you are about to do and get an explicit yes.
R4. Make one tool call at a time, and never call a tool and talk in the same turn.
R5. Only a loan that is out can be extended.
R6. Hand over to a person only when a tool is broken, after looking up the loan.
"""


def tables(size: int, seed: int) -> Tables:
    """Members with three loans each."""
    rng = Random(seed_of("shed", size, seed))
    users, loans = dict[str, Any](), dict[str, Any]()
    ids = iter(numbers(rng, 3 * size, 4))
    for number, (name, digits) in zip(numbers(rng, size, 3), people(rng, size), strict=True):
        users[f"U{number}"] = {"name": name, "zip": digits}
        for status in ("out", "out", "returned"):
            loans[f"L{next(ids)}"] = {
                "user_id": f"U{number}",
                "status": status,
                "days": rng.randint(1, 9),
                "tool": rng.choice(("saw", "drill")),
            }
    return {"users": users, "loans": loans}


class Shed:
    """The class with tables."""

    NAME = "shed"
    ABOUT = "The assistant is the desk of a tool shed; its user is a member."
    POLICY = POLICY
    PERSONAS = ("polite: a gardener", "curt: a builder")
    tables = staticmethod(tables)

    def __init__(self, db: State) -> None:
        self.db = db

    @read(produces=("user_id", "loan_id"))
    def find_user(self, name: str, zip: str) -> dict[str, Any]:
        """Find a member; lists the loans.

        Args:
            name: First and last name.
            zip: Five digits.
        """
        for user_id in self.db.find("users", name=name, zip=zip):
            return {"user_id": user_id, "loans": self.db.find("loans", user_id=user_id)}
        raise Refused("no such member")

    @read(produces=("status",))
    def get_loan(self, loan_id: str) -> dict[str, Any]:
        """Member, status, days and tool of a loan.

        Args:
            loan_id: Such as L4821.
        """
        row = self.db.get("loans", loan_id)
        if row is None:
            raise Refused(f"no loan {loan_id}")
        return dict(row)

    @write(consumes=("loan_id", "status"))
    def extend_loan(self, loan_id: str, days: int) -> dict[str, Any]:
        """Extend a loan.

        Args:
            loan_id: Such as L4821.
            days: How many days more.
        """
        row = self.get_loan(loan_id)
        self.db.update("loans", loan_id, days=row["days"] + days)
        return {"days": row["days"] + days}

    @end(consumes=("status",))
    def transfer_to_human(self, reason: str) -> dict[str, Any]:
        """Hand over to a person.

        Args:
            reason: What is broken.
        """
        return {"ok": True}


class Members:
    """The same as an object that knows nothing of Cairn."""

    def __init__(self) -> None:
        made = tables(30, 0)
        self.users, self.loans = dict(made["users"]), dict(made["loans"])

    def find_user(self, name: str, zip: str) -> dict[str, Any]:
        """Find a member; lists the loans."""
        for user_id, row in self.users.items():
            if (row["name"], row["zip"]) == (name, zip):
                return {"user_id": user_id, "loans": [key for key, loan in self.loans.items() if loan["user_id"] == user_id]}
        raise ValueError("no such member")

    def get_loan(self, loan_id: str) -> dict[str, Any]:
        """Member, status, days and tool of a loan."""
        return dict(self.loans[loan_id])

    def extend_loan(self, loan_id: str, days: int) -> dict[str, Any]:
        """Extend a loan."""
        self.loans[loan_id]["days"] += days
        return {"days": self.loans[loan_id]["days"]}

    def transfer_to_human(self, reason: str) -> dict[str, Any]:
        """Hand over to a person."""
        return {"ok": True}


class AdaptedShed(
    from_object(  # type: ignore[misc]
        Members,
        name="adapted_shed",
        policy=POLICY,
        writes=("extend_loan",),
        ends=("transfer_to_human",),
        produces={"find_user": ("user_id", "loan_id"), "get_loan": ("status", "reason")},
    )
):
    """The object as a world."""

    ABOUT = Shed.ABOUT
    PERSONAS = Shed.PERSONAS


SERVICES: dict[str, Any] = {
    "services": {
        "extend": {
            "wish": {
                "open": [
                    "Please extend loan {loan_id} by {days}.",
                    "I want to keep loan {loan_id} for {days} more.",
                    "Can I have {days} more for loan {loan_id}?",
                ],
                "reserved": ["I need loan {loan_id} for {days} longer."],
                "vague": ["I want to extend a loan by {days}."],
                "task": "extend loan {loan_id} by {days}",
                "ask": "loan_id",
            },
            "table": "loans",
            "key": "loan_id",
            "look": "get_loan",
            "act": "extend_loan",
            "slots": {"days": ["3", "5", "7"]},
            "types": {"days": "integer"},
            "rules": [
                {
                    "name": "R5",
                    "forbids": [{"field": "status", "compare": "!=", "value": "out"}],
                    "reason": "loan {loan_id} is {status}",
                    "output": "{status}",
                }
            ],
            "summary": "I will extend loan {loan_id} by {days} days.",
        },
        "status": {
            "wish": {
                "open": ["What is the status of loan {loan_id}?", "Tell me how loan {loan_id} stands.", "How is loan {loan_id} doing?"],
                "reserved": ["I want to hear the status of loan {loan_id}."],
                "vague": ["What is the status of a loan of mine?"],
                "task": "know the status of loan {loan_id}",
                "ask": "loan_id",
            },
            "table": "loans",
            "key": "loan_id",
            "look": "get_loan",
            "report": "Loan {loan_id} is {status}.",
            "output": "{status}",
        },
        "broken": {
            "wish": {
                "open": [
                    "The tool of loan {loan_id} {trouble}.",
                    "Loan {loan_id}: it {trouble}.",
                    "Bad news, loan {loan_id} {trouble}.",
                ],
                "reserved": ["I must report that loan {loan_id} {trouble}."],
                "task": "report that the tool of loan {loan_id} {trouble}, and be put through to a person",
            },
            "table": "loans",
            "key": "loan_id",
            "look": "get_loan",
            "act": "transfer_to_human",
            "slots": {"trouble": ["broken", "blunt"]},
            "arguments": {"reason": "trouble"},
        },
    },
    "patterns": {"loan_id": r"L\d+"},
    "lexicon": {
        "days": {"3": "three days", "5": "five days", "7": "a week"},
        "trouble": {"broken": "fell apart", "blunt": "got blunt"},
    },
    "hand_overs": ["broken"],
    "people": [
        {
            "tool": "find_user",
            "answer": "user_id",
            "fields": {
                "name": {"called": "full name", "pattern": "[A-Z][a-z]+ [A-Z][a-z]+"},
                "zip": {"called": "zip code", "pattern": r"\d{5}"},
            },
        }
    ],
    "hand_over": "transfer_to_human",
    "identified": "R1",
    "own": "R2",
    "confirmed": "R3",
    "one_call": "R4",
    "looked_up": {"R6": "get_loan"},
}
"""What a good model answers."""
