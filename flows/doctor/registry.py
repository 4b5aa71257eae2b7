"""The champion in MLflow's registry, and the ledger of promotions, which says where it should be."""

from __future__ import annotations

from collections.abc import Iterator

from flows.doctor.finding import Finding, Place, good, warning
from flows.ledger import Ledger
from flows.moved_alias import look
from tasks.contract.params import BadInput


def registry(place: Place) -> Iterator[Finding]:
    """The ledger, wherever it lies, read whole, its chain of hashes included; then whether the alias is where it says. What is wrong
    with either is raised."""
    count = len(Ledger.of(place.checked).records())
    ledger = (
        f"the ledger of promotions has {count} record{'s' * (count != 1)}, none changed and none missing"
        if count
        else "nothing was promoted yet"
    )
    yield good("registry", ledger)
    try:
        seen = look(place.checked)
    except BadInput:  # no server answers there, which the check of servers says
        return
    if seen.moved:
        yield warning("registry", str(seen), "cairn champion --settle   # does what the param promote.moved_by_hand says")
    elif seen.expected:
        yield good("registry", f"the alias of the champion of {seen.model} is where the ledger says")
