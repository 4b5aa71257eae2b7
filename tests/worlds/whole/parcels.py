"""Parcels of people: an object that knows nothing of Cairn, with scripted people by services."""

from __future__ import annotations

from typing import Any

from tasks.contract.conventions import Conventions, Identification
from tasks.worlds.adapters import from_object
from tasks.worlds.api.scripts.introductions import introduction
from tasks.worlds.api.scripts.phrases import question, wish
from tasks.worlds.api.scripts.services import Rule, Service, Services
from tasks.worlds.api.served import served


class Depot:
    """Parcels of people, as a program keeps them that knows nothing of Cairn."""

    def __init__(self) -> None:
        self.clients = {str(number): {"card": f"C{number}00"} for number in range(10, 40)}
        self.parcels = {
            f"Z{number}": {"client": number // 10, "weight": number % 7 + 1, "sent": number % 3 == 0} for number in range(100, 400, 4)
        }

    def by_card(self, card: str) -> dict[str, Any]:
        """Find a client by card."""
        return {"client": next(int(number) for number, row in self.clients.items() if row["card"] == card)}

    def parcel(self, parcel: str) -> dict[str, Any]:
        """Look a parcel up."""
        return dict(self.parcels[parcel])

    def send_back(self, parcel: str) -> dict[str, Any]:
        """Send a parcel back."""
        self.parcels[parcel]["sent"] = True
        return {"weight": self.parcels[parcel]["weight"]}


CARD = Identification("by_card", ("card",), "client")
PARCELS = Services(
    services={
        "back": Service(
            wish("send parcel {parcel} back", vague="send a parcel back", ask="parcel"),
            table="parcels",
            key="parcel",
            look="parcel",
            act="send_back",
            rules=(Rule("R2", lambda row, slots: row["sent"], "parcel {parcel} is sent already", "sent already"),),
            summary="I will send parcel {parcel} back.",
        ),
        "weight": Service(
            question("the weight of parcel {parcel}"),
            table="parcels",
            key="parcel",
            look="parcel",
            report="It weighs {weight}.",
            output="{weight}",
        ),
    },
    patterns={"parcel": r"Z\d+"},
    own="R3",
    introductions=(introduction(CARD, card=("card number", r"C\d+")),),
    conventions=Conventions(identified_by=(CARD,), owner="client"),
    users="clients",
)
PARCELS_POLICY = "R1. Ask for the card.\nR2. What is sent stays so.\nR3. Never touch another account.\nR4. Get a yes before a write."


@served(PARCELS, identified="R1", confirmed="R4")
class Parcels(
    from_object(  # type: ignore[misc]
        Depot,
        name="parcels",
        policy=PARCELS_POLICY,
        writes=("send_back",),
        users="clients",
        produces={"by_card": ("parcel",), "parcel": ("parcel",)},
    )
):
    """Scripted people for an object that exists."""
