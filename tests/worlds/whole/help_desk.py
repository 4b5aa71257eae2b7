"""A help desk for the people of a firm, whole: they say their badge number, nobody has to confirm a write, technicians take over."""

from __future__ import annotations

from random import Random
from typing import Any, Literal

from tasks.contract.context import seed_of
from tasks.contract.conventions import Conventions, Identification
from tasks.worlds.api.scripts.introductions import introduction
from tasks.worlds.api.scripts.names import numbers, people
from tasks.worlds.api.scripts.phrases import question, wish
from tasks.worlds.api.scripts.services import Rule, Service, Services
from tasks.worlds.api.served import served
from tasks.worlds.api.state import Row, State, Tables
from tasks.worlds.api.tools import Refused, end, read, write

Priority = Literal["low", "high", "urgent"]
Team = Literal["network", "hardware"]
SUBJECTS = ("printer", "screen", "password", "wifi", "mail")

BADGE = Identification("scan_badge", ("badge",), "employee")
CONVENTIONS = Conventions(identified_by=(BADGE,), owner="employee", hand_over="page_technician", confirmed_by="nobody")
POLICY = """# Help desk

R1. Ask for the badge number and scan it before anything else.
R2. Never touch a ticket of another account.
R3. Make one tool call at a time, and never call a tool and talk in the same turn.
R4. A ticket that is closed stays as it is.
R5. Nobody makes a ticket urgent over the phone.
R6. A device that is out cannot be lent.
R7. Page a technician only after looking up the ticket.
R8. When a rule forbids a request, change nothing and name the reason.
R9. Do not look up the same thing twice, unless something was changed in between.
"""

CLOSED = Rule("R4", lambda ticket, slots: ticket["status"] == "closed", "ticket {ticket} is closed", "closed")
URGENT = Rule(
    "R5", lambda ticket, slots: slots["priority"] == "urgent", "nobody makes a ticket urgent over the phone", "over the phone"
)
OUT = Rule("R6", lambda device, slots: device["out"], "{device} is out", "is out")

SERVICES = Services(
    services={
        "close": Service(
            wish("close ticket {ticket}", vague="close a ticket of mine", ask="ticket"),
            table="tickets",
            key="ticket",
            look="ticket",
            act="close_ticket",
            rules=(CLOSED,),
        ),
        "priority": Service(
            wish("give ticket {ticket} {priority} priority", vague="give a ticket {priority} priority", ask="ticket"),
            table="tickets",
            key="ticket",
            look="ticket",
            act="set_priority",
            slots={"priority": ("low", "high", "urgent")},
            rules=(CLOSED, URGENT),
        ),
        "lend": Service(
            wish("borrow {device}", vague="borrow a device", ask="device"),
            table="devices",
            key="device",
            look="device",
            act="lend_device",
            owned=False,
            person="employee",
            rules=(OUT,),
            report="Done, it must be back in {days} days.",
            output="{days}",
        ),
        "subject": Service(
            question("the subject of ticket {ticket}", vague="the subject of a ticket of mine", ask="ticket"),
            table="tickets",
            key="ticket",
            look="ticket",
            report="Ticket {ticket} is about the {subject}.",
            output="{subject}",
        ),
        "technician": Service(
            wish("speak to somebody from {team} about ticket {ticket}", vague="speak to somebody from {team}", ask="ticket"),
            table="tickets",
            key="ticket",
            look="ticket",
            act="page_technician",
            slots={"team": ("network", "hardware")},
            arguments={"team": "team"},
        ),
    },
    patterns={"ticket": r"T-\d+", "device": r"D-\d+"},
    lexicon={"team": {"network": "the network team", "hardware": "hardware"}},
    own="R2",
    hand_overs=("technician",),
    held_out_rules=("R5",),
    introductions=(introduction(BADGE, badge=("badge number", r"\d{6}")),),
    conventions=CONVENTIONS,
    users="employees",
)


def tables(size: int, seed: int) -> Tables:
    """employees: id -> name, badge. tickets: id -> employee, subject, priority, status. devices: id -> out, days. loans: empty."""
    rng = Random(seed_of("help_desk", size, seed))
    employees, tickets = dict[str, Any](), dict[str, Any]()
    ids = iter(numbers(rng, 6 * size, 4))
    for badge, (name, _) in zip(numbers(rng, size, 6), people(rng, size), strict=True):
        employees[f"E{next(ids)}"] = {"name": name, "badge": str(badge)}
    for employee in employees:
        for status in ("open", "open", rng.choice(("open", "closed"))):
            row = {"employee": employee, "subject": rng.choice(SUBJECTS), "priority": "normal", "status": status}
            tickets[f"T-{next(ids)}"] = row
    devices = {f"D-{number}": {"out": rng.random() < 0.4, "days": rng.randint(3, 9)} for number in numbers(rng, 12, 2)}
    return {"employees": employees, "tickets": tickets, "devices": devices, "loans": {}}


@served(SERVICES, identified="R1", one_call="R3", looked_up={"R7": "ticket"}, lean="R9")
class HelpDesk:
    """Tickets of employees, and devices that they borrow."""

    NAME = "help_desk"
    ABOUT = "The assistant is the help desk of a firm; its user works there."
    POLICY = POLICY
    PERSONAS = ("polite: an accountant", "friendly: an intern", "curt: a manager", "worried: somebody before a talk")
    tables = staticmethod(tables)

    def __init__(self, db: State) -> None:
        self.db = db

    def _row(self, table: str, key: str) -> Row:
        row = self.db.get(table, key)
        if row is None:
            raise Refused(f"there is no {key}")
        return row

    @read(produces=("ticket", "device"))
    def scan_badge(self, badge: str) -> dict[str, Any]:
        """Find an employee; lists the tickets.

        Args:
            badge: Six digits.
        """
        for employee in self.db.find("employees", badge=badge):
            return {"employee": employee, "tickets": self.db.find("tickets", employee=employee)}
        raise Refused("no such badge")

    @read(produces=("status",), consumes=("ticket",))
    def ticket(self, ticket: str) -> dict[str, Any]:
        """Employee, subject, priority and status of a ticket.

        Args:
            ticket: The ticket's number, such as T-4821.
        """
        return dict(self._row("tickets", ticket))

    @read(produces=("out",), consumes=("device",))
    def device(self, device: str) -> dict[str, Any]:
        """Whether a device is out, and for how many days it is lent.

        Args:
            device: The device's number, such as D-12.
        """
        return dict(self._row("devices", device))

    @write(consumes=("ticket", "status"))
    def close_ticket(self, ticket: str) -> dict[str, Any]:
        """Close a ticket.

        Args:
            ticket: The ticket's number.
        """
        self._row("tickets", ticket)
        self.db.update("tickets", ticket, status="closed")
        return {"ok": True}

    @write(consumes=("ticket", "status"))
    def set_priority(self, ticket: str, priority: Priority) -> dict[str, Any]:
        """Change the priority of a ticket.

        Args:
            ticket: The ticket's number.
            priority: The new priority.
        """
        self._row("tickets", ticket)
        self.db.update("tickets", ticket, priority=priority)
        return {"ok": True}

    @write(consumes=("device", "out"))
    def lend_device(self, employee: str, device: str) -> dict[str, Any]:
        """Lend a device to an employee.

        Args:
            employee: The employee's id.
            device: The device's number.
        """
        self._row("employees", employee)
        days = self._row("devices", device)["days"]
        self.db.update("devices", device, out=True)
        self.db.put("loans", device, {"employee": employee})
        return {"days": days}

    @end(consumes=("status",))
    def page_technician(self, team: Team) -> dict[str, Any]:
        """Put the employee through to a technician, which ends the conversation.

        Args:
            team: Whose.
        """
        return {"ok": True}
