"""The library: its tables, its tools, and the class that Cairn loads.

A tool is a typed method with a docstring: the model reads the first lines as what the tool does and the `Args:` section as what
each argument means. It reads and writes through `self.db` alone, returns a JSON value, and raises `Refused` with the reason. What
the API does not enforce is the policy's part (`policy.md`, tested by the rules in `services.py`).
"""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any, Literal

from tasks.contract.context import seed_of
from tasks.worlds.api.scripts.names import numbers, people
from tasks.worlds.api.served import served
from tasks.worlds.api.state import Row, State, Tables
from tasks.worlds.api.tools import Refused, end, read, write
from tasks.worlds.library.library.services import SERVICES, TITLES

Branch = Literal["north", "south"]
"""An enumeration: the schema lists the values, and any other is refused before the tool runs."""


def tables(size: int, seed: int) -> Tables:
    """The database of `size` members with three or four loans each; a function of both numbers and of nothing else.

    users: id -> name, zip. titles: title -> free copies. loans: id -> user_id, title, status (out, overdue, returned), days
    (until it is due), renewals, fee. reservations: "member title" -> branch; empty at the start.
    """
    rng = Random(seed_of("library", size, seed))
    titles = {title: {"free": rng.choice((0, 0, 1, 2, 3))} for title in TITLES}
    users: dict[str, Any] = {}
    loans: dict[str, Any] = {}
    ids = iter(numbers(rng, 4 * size, 4))
    for number, (name, zip_code) in zip(numbers(rng, size, 3), people(rng, size), strict=True):
        users[f"U{number}"] = {"name": name, "zip": zip_code}
        for status in ("out", "overdue", *rng.choices(("out", "returned"), (2, 1), k=rng.randint(1, 2))):
            loans[f"L{next(ids)}"] = {
                "user_id": f"U{number}",
                "title": rng.choice(TITLES),
                "status": status,
                "days": rng.randint(1, 20) if status == "out" else 0,
                "renewals": rng.choice((0, 1, 1, 2)),
                "fee": rng.randint(1, 9) if status == "overdue" else 0,
            }
    return {"users": users, "titles": titles, "loans": loans, "reservations": {}}


@served(SERVICES, identified="R1", confirmed="R3", one_call="R4", looked_up={"R9": "get_loan"}, lean="R11")
class Library:
    """A lending library: its tools, and what a world states beside them (tasks/worlds/api/runtime.py explains each name). What is said
    above it: which rule of policy.md says what a machine can check; R10 is left to the grading and to judges."""

    NAME = "library"
    ABOUT = "The assistant is the desk of a lending library; its user is a member."
    POLICY = Path(__file__).with_name("policy.md").read_text(encoding="utf-8")
    PERSONAS = ("polite: a retired teacher", "friendly: a student", "curt: a busy engineer", "worried: a first-time member")
    tables = staticmethod(tables)

    def __init__(self, db: State) -> None:
        self.db = db

    def _loan(self, loan_id: str) -> Row:
        loan = self.db.get("loans", loan_id)
        if loan is None:
            raise Refused(f"no loan {loan_id}")
        return loan

    @read(produces=("user_id", "loan_id"))
    def find_user(self, name: str, zip: str) -> dict[str, Any]:
        """Find a member by full name and zip code; lists the member's loans.

        Args:
            name: First and last name.
            zip: Zip code of five digits.
        """
        for user_id in self.db.find("users", name=name, zip=zip):
            return {"user_id": user_id, "loans": self.db.find("loans", user_id=user_id)}
        raise Refused("no such user")

    @read(produces=("status", "fee"))
    def get_loan(self, loan_id: str) -> dict[str, Any]:
        """Member, title, status, days left, number of renewals and fee of a loan.

        Args:
            loan_id: The loan's id, such as L4821.
        """
        return dict(self._loan(loan_id))

    @read(produces=("free",))
    def get_title(self, title: str) -> dict[str, Any]:
        """How many copies of a title are free on the shelf.

        Args:
            title: The book's title.
        """
        row = self.db.get("titles", title)
        if row is None:
            raise Refused(f"no title {title}")
        return {"free": row["free"]}

    @write(consumes=("loan_id", "status"))
    def renew_loan(self, loan_id: str, weeks: int = 2) -> dict[str, Any]:
        """Renew a loan for some weeks.

        Args:
            loan_id: The loan's id.
            weeks: How many weeks; two when left out.
        """
        loan = self._loan(loan_id)
        if weeks < 1:
            raise Refused("a renewal is for one week at least")
        self.db.update("loans", loan_id, days=loan["days"] + 7 * weeks, renewals=loan["renewals"] + 1)
        return {"days": loan["days"] + 7 * weeks}

    @write(consumes=("loan_id", "fee"))
    def pay_fee(self, loan_id: str) -> dict[str, Any]:
        """Take the fee of a loan from the member's account.

        Args:
            loan_id: The loan's id.
        """
        fee = self._loan(loan_id)["fee"]
        if not fee:
            raise Refused(f"no fee is due on loan {loan_id}")
        self.db.update("loans", loan_id, fee=0)
        return {"paid": fee}

    @write(consumes=("user_id", "free"))
    def reserve_title(self, user_id: str, title: str, branch: Branch) -> dict[str, Any]:
        """Reserve the next copy of a title for a member.

        Args:
            user_id: The member's id.
            title: The book's title.
            branch: Where the member picks it up.
        """
        if self.db.get("users", user_id) is None or self.db.get("titles", title) is None:
            raise Refused(f"no member {user_id} or no title {title}")
        # The key follows from the arguments: a counter would make the state depend on the order of writes.
        self.db.put("reservations", f"{user_id} {title}", {"branch": branch})
        return {"ok": True}

    @end(consumes=("status",))
    def transfer_to_human(self, reason: Literal["lost", "damaged"]) -> dict[str, Any]:
        """Hand the conversation over to a person, which ends it.

        Args:
            reason: What happened to the book.
        """
        return {"ok": True}
