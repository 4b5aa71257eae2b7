"""Worlds with one fault each: the template's library with one tool or one list replaced. Marks such as `# clock-1` are looked for."""

from __future__ import annotations

import itertools
import logging
import os
import random
import secrets
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from os import urandom as noise
from pathlib import Path
from random import Random
from time import time as now
from typing import Any

from tasks.worlds.adapters import from_object
from tasks.worlds.api import conduct
from tasks.worlds.api.state import State
from tasks.worlds.api.tools import Refused, read, write
from tasks.worlds.library.library.world import Library

SEEN: list[str] = []
LOG = logging.getLogger(__name__)


def _today() -> str:
    return datetime.now().isoformat()  # clock-2


class Clock(Library):
    @read(produces=("free",))
    def get_title(self, title: str) -> dict[str, Any]:
        """Look a title up.

        Args:
            title: The title.
        """
        return {"free": 1, "at": now()}  # clock-1

    @read(produces=("status", "fee"))
    def get_loan(self, loan_id: str) -> dict[str, Any]:
        """Look a loan up.

        Args:
            loan_id: The loan.
        """
        loan = dict(self._loan(loan_id))
        return {**loan, "today": bool(_today())}

    @write(consumes=("loan_id", "fee"))
    def pay_fee(self, loan_id: str) -> dict[str, Any]:
        """Pay.

        Args:
            loan_id: The loan.
        """
        fee = self._loan(loan_id)["fee"]
        if not fee:
            raise Refused("no fee")
        self.db.update("loans", loan_id, fee=0, year=date.today().year - date.today().year)  # clock-3
        LOG.warning("a log record carries a time and is no fault")
        return {"paid": fee}


class Chance(Library):
    @read(produces=("free",))
    def get_title(self, title: str) -> dict[str, Any]:
        """Look a title up.

        Args:
            title: The title.
        """
        return {"free": random.choice((1, 1))}  # random-1

    @read(produces=("status", "fee"))
    def get_loan(self, loan_id: str) -> dict[str, Any]:
        """Look a loan up.

        Args:
            loan_id: The loan.
        """
        return {**self._loan(loan_id), "id": len(str(uuid.uuid4()))}  # random-2

    @read(produces=("user_id", "loan_id"))
    def find_user(self, name: str, zip: str) -> dict[str, Any]:
        """Find a member.

        Args:
            name: The name.
            zip: The zip.
        """
        token, more = len(secrets.token_hex(4)), len(noise(2))  # random-3
        chosen = random.Random().randint(1, 1)  # random-4
        for user_id in self.db.find("users", name=name, zip=zip):
            return {"user_id": user_id, "loans": self.db.find("loans", user_id=user_id), "x": token + more + chosen}
        raise Refused("no such user")


class Seeded(Library):
    """Chance that is none: a generator that the tool seeds from what it was given."""

    @read(produces=("free",))
    def get_title(self, title: str) -> dict[str, Any]:
        """Look a title up.

        Args:
            title: The title.
        """
        return {"free": Random(title).randint(0, 3), "seconds": time.strptime("2024-01-01", "%Y-%m-%d").tm_year}


class Forgetful(Library):
    """Keeps things outside the state: on the object, on the class, in a global, in a default."""

    calls = {"count": 0}

    def __init__(self, db: State) -> None:
        super().__init__(db)
        self.last = ""

    @read(produces=("free",))
    def get_title(self, title: str) -> dict[str, Any]:
        """Look a title up.

        Args:
            title: The title.
        """
        self.last = title  # shared-1
        self.calls["count"] += 1  # shared-2
        return {"free": self.calls["count"]}

    @read(produces=("status", "fee"))
    def get_loan(self, loan_id: str) -> dict[str, Any]:
        """Look a loan up.

        Args:
            loan_id: The loan.
        """
        SEEN.append(loan_id)  # shared-3
        return {**self._loan(loan_id), "times": _times(loan_id)}


def _times(loan_id: str, known: dict[str, int] = {}) -> int:  # noqa: B006
    known[loan_id] = known.get(loan_id, 0) + 1
    return min(known[loan_id], 1)


class InPlace(Library):
    @write(consumes=("loan_id", "fee"))
    def pay_fee(self, loan_id: str) -> dict[str, Any]:
        """Pay.

        Args:
            loan_id: The loan.
        """
        row = self._loan(loan_id)
        dict.update(row, fee=0)
        return {"ok": True}


class Sharing(Library):
    """New rows are changed in place, so that a snapshot that holds one changes too."""

    @write(consumes=("user_id", "free"))
    def reserve_title(self, user_id: str, title: str, branch: str) -> dict[str, Any]:
        """Reserve.

        Args:
            user_id: The member.
            title: The title.
            branch: Where.
        """
        key = f"{user_id} {title}"
        row = self.db.get("reservations", key)
        if row is None:
            self.db.put("reservations", key, {"branch": branch, "times": 1})
        else:
            dict.update(row, times=row["times"] + 1)
        return {"ok": True}


class Counting(Library):
    """New rows are numbered in the order of their writes."""

    @write(consumes=("user_id", "free"))
    def reserve_title(self, user_id: str, title: str, branch: str) -> dict[str, Any]:
        """Reserve.

        Args:
            user_id: The member.
            title: The title.
            branch: Where.
        """
        number = sum(1 for _ in self.db.rows("reservations"))
        self.db.put("reservations", f"R{number}", {"user_id": user_id, "title": title, "branch": branch})
        return {"ok": True}


class Prints(Library):
    @read(produces=("user_id", "loan_id"))
    def find_user(self, name: str, zip: str) -> dict[str, Any]:
        """Find a member.

        Args:
            name: The name.
            zip: The zip.
        """
        print("looking ...", end="")
        os.write(1, b"still looking ...")
        return Library.find_user(self, name, zip)


class Unordered(Library):
    @read(produces=("user_id", "loan_id"))
    def find_user(self, name: str, zip: str) -> dict[str, Any]:
        """Find a member.

        Args:
            name: The name.
            zip: The zip.
        """
        for user_id in self.db.find("users", name=name, zip=zip):
            return {"user_id": user_id, "loans": list(set(self.db.find("loans", user_id=user_id)))}
        raise Refused("no such user")


class Failing(Library):
    @read(produces=("free",))
    def get_title(self, title: str) -> dict[str, Any]:
        """Look a title up.

        Args:
            title: The title.
        """
        return {"free": 1 // self._none()}

    def _none(self) -> int:
        return 0 // 0  # failing

    @read(produces=("status", "fee"))
    def get_loan(self, loan_id: str) -> dict[str, Any]:
        """A look-up that writes.

        Args:
            loan_id: The loan.
        """
        self.db.update("loans", loan_id, seen=True)
        return dict(self._loan(loan_id))


class Lazy(Library):
    """A write that writes nothing, beside a tool that nothing leads to and no problem asks for."""

    @write(consumes=("user_id", "free"))
    def reserve_title(self, user_id: str, title: str, branch: str) -> dict[str, Any]:
        """Reserve.

        Args:
            user_id: The member.
            title: The title.
            branch: Where.
        """
        return {"ok": True}

    @write(consumes=("stamp",))
    def stamp_card(self, card_id: str) -> dict[str, Any]:
        """Stamp a card.

        Args:
            card_id: The card.
        """
        return {"ok": bool(self.db.get("users", card_id))}


def _crashes(trajectory: Any, world: Any) -> str | None:
    return str(trajectory.calls[0][0].arguments["no such argument"])  # crashes


class Blind(Library):
    """Predicates that say nothing: always true, always false, and one that fails."""

    BLUEPRINT_PREDICATES = {**Library.BLUEPRINT_PREDICATES, "R5": lambda problem, replay, world: None}  # always
    TRAJECTORY_PREDICATES = {
        **Library.TRAJECTORY_PREDICATES,
        "R6": lambda trajectory, world: "no",  # never
        "R7": _crashes,
    }


class Strict(Library):
    """A predicate that refuses the world's own problems."""

    BLUEPRINT_PREDICATES = {**Library.BLUEPRINT_PREDICATES, "R9": conduct.truth_looked_up("get_title")}


def _changed(draft: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**draft, **changes} if draft else draft


class Mute(Library):
    """Refusals that need no look-up and no word, and a ground truth that says too little."""

    @staticmethod
    def propose(
        context: Mapping[str, Any], rng: Random, walk: Sequence[str] | None = None, family: str | None = None
    ) -> dict[str, Any]:
        draft = Library.propose(context, rng, walk, family)
        if family == "forbidden":
            return _changed(draft, outputs=[], required=[])
        return _changed(draft, required=[{"name": "get_loan", "arguments": {"loan_id": "L0"}}]) if family == "hand_over" else draft


class Vague(Library):
    """Two branches, one sentence."""

    @staticmethod
    def propose(
        context: Mapping[str, Any], rng: Random, walk: Sequence[str] | None = None, family: str | None = None
    ) -> dict[str, Any]:
        draft = Library.propose(context, rng, walk, family)
        if draft and family == "one_write":
            return _changed(draft, instruction="You want something.", intent={})
        return draft


class Stuck(Library):
    """A family that never gives a problem, because the API refuses its writes."""

    @write(consumes=("loan_id", "status"))
    def renew_loan(self, loan_id: str, weeks: int = 2) -> dict[str, Any]:
        """Renew.

        Args:
            loan_id: The loan.
            weeks: How long.
        """
        raise Refused("closed today")

    FAMILIES = ("renewals",)

    @staticmethod
    def propose(
        context: Mapping[str, Any], rng: Random, walk: Sequence[str] | None = None, family: str | None = None
    ) -> dict[str, Any]:
        loan_id = next(iter(context["loans"]))
        actions = [{"name": "renew_loan", "arguments": {"loan_id": loan_id}}]
        return {"thought": "", "instruction": "Renew.", "actions": actions, "outputs": [], "family": "renewals"}


class Drifting(Library):
    """Tables that are drawn anew each time."""

    @staticmethod
    def tables(size: int, seed: int) -> Any:
        made = Library.tables(size, seed)
        return {**made, "notes": {"n": {"text": random.random()}}}  # drifting


class Bare:
    """Nothing of what a world needs, and a word with a space for a name."""

    NAME = "my shop"


class Untyped(Library):
    @read()
    def first(self, key) -> str:  # type: ignore[no-untyped-def] # untyped
        """Look.

        Args:
            key: A key.
        """
        return str(key)

    @read()
    def second(self, key: str) -> str:  # no docstring
        return key

    @read()
    def third(self, key: str, other: dict) -> str:  # type: ignore[type-arg] # two mistakes
        """Look.

        Args:
            other: Something.
            kee: A typo.
        """
        return key


class Ticker:
    """An API that was there before: amounts of four people, and the time."""

    def __init__(self) -> None:
        self.amounts = {f"u{number}": {"amount": 0} for number in range(4)}

    def now(self) -> bool:
        """Whether it is late."""
        return time.time() < 0  # adapted-1

    def peek(self) -> int:
        """A look-up that changes something."""
        self.amounts["u1"]["amount"] += 1
        return 1

    def add(self, user: str, amount: int) -> int:
        self.amounts[user]["amount"] += amount
        return self.amounts[user]["amount"]

    def leave(self) -> None:
        """Hand over."""


Ticking = from_object(
    Ticker,
    name="ticker",
    policy="R1. Add what is asked for.",
    writes=("add",),
    ends=("leave",),
    users="amounts",
    problems_file=Path(__file__).with_name("ticker.jsonl"),
    leave_out=("amuonts.*.seen",),
    rounded={"amounts.*.amount": 1},
)

LEDGER: list[int] = []
RATES = {"u1": 1}


class Counter(Ticker):
    """The same, with what it was told in a global and its numbers in the class."""

    numbers = itertools.count(1)

    def add(self, user: str, amount: int) -> int:
        LEDGER.append(amount * RATES.get(user, 1))  # common-1
        self.amounts[user]["number"] = next(self.numbers) * 0  # common-2
        return super().add(user, amount)


Shared = from_object(
    Counter,
    name="shared",
    policy="R1. Add what is asked for.",
    writes=("add",),
    ends=("leave",),
    tools=("add", "leave"),
    users="amounts",
    problems_file=Path(__file__).with_name("ticker.jsonl"),
)


class Toolbox:
    """Tools without problems: what a world is before anybody has written a generator."""

    NAME = "toolbox"
    POLICY = "Be kind."

    def __init__(self, db: State) -> None:
        self.db = db

    @staticmethod
    def tables(size: int, seed: int) -> Any:
        return {"users": {f"u{number}": {"name": f"User {number}"} for number in range(size)}}

    @read()
    def get_user(self, user_id: str) -> dict[str, Any]:
        """Look a user up.

        Args:
            user_id: The user.
        """
        return dict(self.db.get("users", user_id) or {})

    def total(self) -> int:
        """Somebody forgot to mark it."""
        return 1


class Register:
    """An API that nobody wrote for hosted models."""

    def __init__(self) -> None:
        self._rows = {"a": 1}

    def prüfe(self, key: str) -> int:  # named-1
        """Look a row up."""
        return self._rows.get(key, 0)

    def everything(self) -> str:  # endless-1
        """All there is."""
        return "x" * 40_000


def _long(self: Register) -> int:
    """Count the rows."""
    return len(self._rows)


LONG = "count_" * 11 + "rows"
setattr(Register, LONG, _long)

Foreign = from_object(Register, name="foreign", policy="1. Look before you write.\nR2: Be brief.", writes=[])


def refuse(arguments: object) -> object:
    raise Refused("not so")
