"""Alarms of nobody in particular: an API to which nobody says who they are."""

from __future__ import annotations

from random import Random
from typing import Any

from tasks.contract.conventions import Conventions
from tasks.worlds.api.scripts.phrases import question, wish
from tasks.worlds.api.scripts.services import Rule, Service, Services
from tasks.worlds.api.served import served
from tasks.worlds.api.state import State, Tables
from tasks.worlds.api.tools import read, write

ANONYMOUS = Services(
    services={
        "ring": Service(
            wish("set off alarm {alarm}"),
            table="alarms",
            key="alarm",
            look="alarm",
            act="ring",
            owned=False,
            rules=(Rule("R1", lambda row, slots: row["locked"], "alarm {alarm} is locked", "locked"),),
            summary="I will set off alarm {alarm}.",
        ),
        "hour": Service(
            question("the hour of alarm {alarm}"),
            table="alarms",
            key="alarm",
            look="alarm",
            owned=False,
            report="It is {hour}.",
            output="{hour}",
        ),
    },
    patterns={"alarm": r"A\d+"},
    introductions=(),
    conventions=Conventions(identified_by=()),
)


@served(ANONYMOUS, confirmed="R2")
class Clock:
    """An API of nobody in particular: alarms that anybody may read and set off."""

    NAME = "clock"
    POLICY = "R1. An alarm that is locked is not set off.\nR2. Get a yes before an alarm is set off."

    def __init__(self, db: State) -> None:
        self.db = db

    @staticmethod
    def tables(size: int, seed: int) -> Tables:
        """alarms: id -> hour, locked, rung. users: whose problems are split, and who never say who they are."""
        rng = Random(seed)
        alarms = {f"A{number}": {"hour": rng.randint(1, 12), "locked": rng.random() < 0.3, "rung": False} for number in range(100, 140)}
        return {"users": {f"u{number}": {} for number in range(size)}, "alarms": alarms}

    @read(produces=("alarm",))
    def alarm(self, alarm: str) -> dict[str, Any]:
        """Look an alarm up.

        Args:
            alarm: Its id.
        """
        return dict(self.db.get("alarms", alarm) or {})

    @write(consumes=("alarm",))
    def ring(self, alarm: str) -> dict[str, Any]:
        """Set an alarm off.

        Args:
            alarm: Its id.
        """
        self.db.update("alarms", alarm, rung=True)
        return {"ok": True}
