"""A clinic, whole: patients are found by name and birth date or by their card, look-ups are not called get_, reception takes over, and
only what changes an appointment needs a yes."""

from __future__ import annotations

from random import Random
from typing import Any, Literal

from tasks.contract.context import seed_of
from tasks.contract.conventions import Conventions, Identification
from tasks.worlds.api.scripts.introductions import NAME, introduction
from tasks.worlds.api.scripts.names import numbers, people
from tasks.worlds.api.scripts.phrases import question, wish
from tasks.worlds.api.scripts.services import Rule, Service, Services
from tasks.worlds.api.served import served
from tasks.worlds.api.state import Row, State, Tables
from tasks.worlds.api.tools import Refused, end, read, write

Day = Literal["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"]
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
DOCTORS = ("Dr Abel", "Dr Brandt", "Dr Chen")
DRUGS = ("Ramipril", "Metformin", "Ibuprofen")

BY_BIRTH = Identification("find_patient", ("name", "birth_date"), "patient.id")
BY_CARD = Identification("read_card", ("card",), "id")
CONVENTIONS = Conventions(
    identified_by=(BY_BIRTH, BY_CARD),
    open_tools=("opening_hours",),
    owner="patient_id",
    hand_over="call_reception",
    confirmed=("cancel_appointment", "move_appointment"),
)
POLICY = """# Clinic

R1. Find the patient by full name and birth date, or by their card, before anything else; opening hours are open to all.
R2. One patient per conversation: never touch what belongs to another account.
R3. Before an appointment is cancelled or moved, say what you are about to do and get an explicit yes; a refill needs none.
R4. Make one tool call at a time, and never call a tool and talk in the same turn.
R5. Only an appointment that is booked can be cancelled or moved.
R6. An appointment that is today cannot be moved.
R7. A prescription with no refills left is not refilled.
R8. Put through to reception only for pain or a complaint, after looking up the appointment.
R9. When a rule forbids a request, change nothing and name the reason.
R10. Do not look up the same thing twice, unless something was changed in between.
"""

OVER = Rule("R5", lambda row, slots: row["status"] != "booked", "appointment {appointment_id} is {status}", "{status}")
TODAY = Rule("R6", lambda row, slots: row["in_days"] == 0, "an appointment of today cannot be moved", "today")
EMPTY = Rule("R7", lambda row, slots: row["refills"] == 0, "there are no refills left for {prescription_id}", "no refills left")
APPOINTMENT = {"table": "appointments", "key": "appointment_id", "look": "appointment"}

SERVICES = Services(
    services={
        "cancel": Service(
            wish("cancel appointment {appointment_id}", vague="cancel an appointment of mine", ask="appointment_id"),
            **APPOINTMENT,
            act="cancel_appointment",
            rules=(OVER,),
            summary="I will cancel appointment {appointment_id}.",
        ),
        "move": Service(
            wish("move appointment {appointment_id} to {day}", vague="move an appointment to {day}", ask="appointment_id"),
            **APPOINTMENT,
            act="move_appointment",
            slots={"day": DAYS},
            rules=(OVER, TODAY),
            summary="I will move appointment {appointment_id} to {day}.",
            report="Done, it is with {doctor}.",
            output="{doctor}",
        ),
        "refill": Service(
            wish("have prescription {prescription_id} refilled", vague="have a prescription refilled", ask="prescription_id"),
            table="prescriptions",
            key="prescription_id",
            look="prescription",
            act="refill",
            rules=(EMPTY,),
            summary="I will refill prescription {prescription_id}.",
            report="Done, the number of refills left is {left}.",
        ),
        "when": Service(
            question("the day of appointment {appointment_id}", vague="the day of an appointment of mine", ask="appointment_id"),
            **APPOINTMENT,
            report="Appointment {appointment_id} is on {day}.",
            output="{day}",
        ),
        "pain": Service(
            wish("say that {trouble} after appointment {appointment_id}", vague="say that {trouble}", ask="appointment_id"),
            **APPOINTMENT,
            act="call_reception",
            slots={"trouble": ("pain", "complaint")},
            arguments={"reason": "trouble"},
        ),
    },
    patterns={"appointment_id": r"A\d+", "prescription_id": r"R\d+"},
    lexicon={"trouble": {"pain": "it hurts badly", "complaint": "the doctor was rude"}},
    own="R2",
    hand_overs=("pain",),
    held_out_rules=("R6",),
    held_out=(frozenset({"cancel_appointment", "refill"}),),
    introductions=(
        introduction(BY_BIRTH, name=("full name", NAME), birth_date=("birth date", r"\d{4}-\d\d-\d\d")),
        introduction(BY_CARD, card=("card number", r"K\d{5}")),
    ),
    conventions=CONVENTIONS,
    users="patients",
)


def tables(size: int, seed: int) -> Tables:
    """patients: id -> name, birth_date, card ("" for half of them). appointments and prescriptions: id -> patient_id and more."""
    rng = Random(seed_of("clinic", size, seed))
    patients, appointments, prescriptions = dict[str, Any](), dict[str, Any](), dict[str, Any]()
    ids = iter(numbers(rng, 6 * size, 4))
    for number, (name, digits) in zip(numbers(rng, size, 3), people(rng, size), strict=True):
        born = f"{rng.randint(1930, 2005)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
        patients[f"P{number}"] = {"name": name, "birth_date": born, "card": f"K{digits}" if rng.random() < 0.5 else ""}
        for status in ("booked", "booked", rng.choice(("booked", "over", "cancelled"))):
            appointments[f"A{next(ids)}"] = {
                "patient_id": f"P{number}",
                "status": status,
                "day": rng.choice(DAYS),
                "doctor": rng.choice(DOCTORS),
                "in_days": rng.choice((0, 2, 5, 9)),
            }
        for drug in rng.sample(DRUGS, 2):
            prescriptions[f"R{next(ids)}"] = {"patient_id": f"P{number}", "drug": drug, "refills": rng.choice((0, 1, 2))}
    return {"patients": patients, "appointments": appointments, "prescriptions": prescriptions}


@served(SERVICES, identified="R1", confirmed="R3", one_call="R4", looked_up={"R8": "appointment"}, lean="R10")
class Clinic:
    """Appointments and prescriptions of patients."""

    NAME = "clinic"
    ABOUT = "The assistant is the desk of a clinic; its user is a patient."
    POLICY = POLICY
    PERSONAS = ("polite: a retired teacher", "friendly: a student", "curt: a busy engineer", "worried: a young father")
    tables = staticmethod(tables)

    def __init__(self, db: State) -> None:
        self.db = db

    def _row(self, table: str, key: str) -> Row:
        row = self.db.get(table, key)
        if row is None:
            raise Refused(f"there is no {key}")
        return row

    def _patient(self, **fields: str) -> dict[str, Any]:
        for patient in self.db.find("patients", **fields):
            return {"id": patient, "appointments": self.db.find("appointments", patient_id=patient)}
        raise Refused("no such patient")

    @read(produces=("appointment_id", "prescription_id"))
    def find_patient(self, name: str, birth_date: str) -> dict[str, Any]:
        """Find a patient; lists the appointments.

        Args:
            name: First and last name.
            birth_date: As 1980-05-31.
        """
        return {"patient": self._patient(name=name, birth_date=birth_date)}

    @read(produces=("appointment_id", "prescription_id"))
    def read_card(self, card: str) -> dict[str, Any]:
        """Find a patient by the number on their card.

        Args:
            card: The number, such as K12345.
        """
        if not card:
            raise Refused("no number")
        return self._patient(card=card)

    @read()
    def opening_hours(self, day: Day) -> str:
        """When the clinic is open.

        Args:
            day: The day.
        """
        return "8 to 12" if day == "Friday" else "8 to 18"

    @read(produces=("status",), consumes=("appointment_id",))
    def appointment(self, appointment_id: str) -> dict[str, Any]:
        """Patient, day, doctor and status of an appointment.

        Args:
            appointment_id: The appointment's id, such as A4821.
        """
        return dict(self._row("appointments", appointment_id))

    @read(produces=("refills",), consumes=("prescription_id",))
    def prescription(self, prescription_id: str) -> dict[str, Any]:
        """Patient, drug and refills left of a prescription.

        Args:
            prescription_id: The prescription's id, such as R4821.
        """
        return dict(self._row("prescriptions", prescription_id))

    @write(consumes=("appointment_id", "status"))
    def cancel_appointment(self, appointment_id: str) -> dict[str, Any]:
        """Cancel an appointment.

        Args:
            appointment_id: The appointment's id.
        """
        self._row("appointments", appointment_id)
        self.db.update("appointments", appointment_id, status="cancelled")
        return {"ok": True}

    @write(consumes=("appointment_id", "status"))
    def move_appointment(self, appointment_id: str, day: Day) -> dict[str, Any]:
        """Move an appointment to another day.

        Args:
            appointment_id: The appointment's id.
            day: The new day.
        """
        doctor = self._row("appointments", appointment_id)["doctor"]
        self.db.update("appointments", appointment_id, day=day, in_days=7)
        return {"doctor": doctor}

    @write(consumes=("prescription_id", "refills"))
    def refill(self, prescription_id: str) -> dict[str, Any]:
        """Refill a prescription.

        Args:
            prescription_id: The prescription's id.
        """
        left = self._row("prescriptions", prescription_id)["refills"] - 1
        self.db.update("prescriptions", prescription_id, refills=left)
        return {"left": left}

    @end(consumes=("status",))
    def call_reception(self, reason: Literal["pain", "complaint"]) -> dict[str, Any]:
        """Put the patient through to reception, which ends the conversation.

        Args:
            reason: Why.
        """
        return {"ok": True}
