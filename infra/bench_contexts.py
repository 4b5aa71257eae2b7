"""What a generator is shown of a state that is not Cairn's: does it hold something to act on, and what does it cost.

A context holds something to act on when at least one write tool gets every argument that is an id from values in it, each of a row
that belongs to the context's user, and one of them is not the user's own id (else changing one's address would always do). Such a call
is then made on a fresh copy of the world: it must fit the tool's schema, and the share that the world carries out is reported too.
Worlds: a help desk of one's own, and tau2-bench's retail shop where `make .cairn/tau2/.ready` has fetched it.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any

from infra.bench import publish
from tasks.contract.params import BadInput
from tasks.contract.problem import Action
from tasks.worlds.adapters import from_object
from tasks.worlds.adapters.context import Reader
from tasks.worlds.adapters.context_tables import KEY, is_id_name, leaves, singular, words_of
from tasks.worlds.api.problem_making import Excerpt
from tasks.worlds.api.runtime import World
from tasks.worlds.api.tools import Refused, Tool

MUST = 0.95
TAU2 = "tasks.worlds.library.tau2_retail:Tau2Retail"
TRIES = 60
"""Most calls of one tool in a context: combinations of the user's values."""
_PLAIN: dict[str, Any] = {"integer": 1, "number": 1, "boolean": True, "array": [], "object": {}}

Values = dict[tuple[str, ...], list[Any]]
"""Words of a field's name -> what one row has there."""


class HelpDesk:
    """Tickets, devices and licences of a company's employees, as somebody may have written it."""

    def __init__(self) -> None:
        rng = Random(7)
        self.today = "2026-03-01"
        self.employees = {f"E{n:04}": {"name": f"Employee {n}", "department": rng.choice(["sales", "it"])} for n in range(300)}
        self.devices = {
            f"D{n:05}": {"holder": f"E{rng.randrange(300):04}", "kind": rng.choice(["laptop", "phone"]), "status": "in use"}
            for n in range(500)
        }
        self.tickets = [self._ticket(n, rng) for n in range(900)]
        self.licences = {f"LIC-{n}": {"product": f"Tool {n}", "seats": 10 + n, "used": n} for n in range(40)}
        self.articles = {f"KB{n:03}": {"title": f"How to {n}", "text": "See the ticket. " * 40} for n in range(120)}

    def _ticket(self, number: int, rng: Random) -> dict[str, Any]:
        return {
            "ticket_id": f"T{number:05}",
            "employee_id": f"E{rng.randrange(300):04}",
            "device_id": rng.choice([*list(self.devices)[:400], None]),
            "licence": f"LIC-{rng.randrange(40)}",
            "status": rng.choices(["open", "waiting", "closed", "escalated"], [50, 20, 28, 2])[0],
            "priority": rng.randint(1, 4),
            "opened": f"2026-0{rng.randint(1, 2)}-{rng.randint(1, 28):02}",
            "comments": [
                {"by": f"E{rng.randrange(300):04}", "text": f"as in T{rng.randrange(900):05}"} for _ in range(rng.randrange(3))
            ],
        }

    def _find(self, ticket_id: str) -> dict[str, Any]:
        return next(row for row in self.tickets if row["ticket_id"] == ticket_id)

    def find_employee(self, name: str) -> str:
        """The id of an employee."""
        return next(key for key, row in self.employees.items() if row["name"] == name)

    def get_ticket(self, ticket_id: str) -> dict[str, Any]:
        """Look a ticket up."""
        return self._find(ticket_id)

    def close_ticket(self, ticket_id: str, reason: str) -> str:
        """Close a ticket that is not closed."""
        if self._find(ticket_id)["status"] == "closed":
            raise ValueError("it is closed")
        self._find(ticket_id)["status"] = "closed"
        return "closed"

    def replace_device(self, employee_id: str, device_id: str) -> str:
        """Order another device for the one that an employee holds."""
        if self.devices[device_id]["holder"] != employee_id:
            raise ValueError("somebody else holds it")
        self.devices[device_id]["status"] = "to be replaced"
        return "ordered"


DESK_POLICY = (
    "R1. Close a ticket only when the employee says so.\nR2. A ticket of priority 1 is not closed within 14 days of its opening."
)


def worlds() -> Iterator[World]:
    """Each that can be measured; says why one cannot."""
    made = from_object(HelpDesk, name="help_desk", policy=DESK_POLICY, writes=("close_ticket", "replace_device"))
    yield World.build(made, 1, 0)
    from tasks.worlds.api.loading import world_class

    try:
        yield World.build(world_class(TAU2), 1, 0, TAU2)
    except BadInput as why:
        print(f"tau2 retail is not measured: {why}")


def calls_of(world: World, reader: Reader, data: Mapping[str, Any]) -> Iterator[Action]:
    """Calls of write tools with the context's own values: those that the definition above asks for."""
    root = next(number for number in reader.links.people.values() if reader.links.rows[number].value == data["user"])
    visible = {str(value) for _, value in (*leaves(data["user"]), *leaves(data["state"]))} | {reader.links.rows[root].key}
    rows = [reader.links.rows[number] for number in reader.links.own(root)]
    values: list[Values] = []
    for row in rows:
        mine: Values = defaultdict(list)
        table = words_of(reader.links.tables[row.table].path[-1])
        if row.key in visible or row.value == data["user"]:
            mine[(*table, "id")].append(row.key)
        for place, value in leaves(row.value):
            name = next((part for part in reversed(place) if part[:1] not in "(["), "")
            if str(value) in visible:
                mine[(*words_of(name), "id") if place[-1] == KEY else tuple(words_of(name))].append(value)
        values.append(mine)
    for tool in world.tools.values():
        if tool.kind == "write":
            filled = _filled(tool, values, reader.links.rows[root].key)
            yield from itertools.islice(filled, TRIES)


def _filled(tool: Tool, values: Sequence[Values], user: str) -> Iterator[Action]:
    """Calls of a tool: each id from one own row if it has it, else from any; one of them is not the user's."""
    properties = tool.parameters.get("properties", {})
    needed = [name for name in tool.parameters.get("required", ()) if is_id_name(singular(name.lower()))]
    for main in values[1:]:
        candidates = []
        for name in needed:
            words = tuple(words_of(name))
            found = main.get(words) or next((mine[words] for mine in values if mine.get(words)), [])
            many = properties[name].get("type") == "array"
            candidates.append([[one] for one in found] if many else list(dict.fromkeys(found)))
        for chosen in itertools.product(*candidates):
            if any(one != user for one in chosen):
                arguments = dict(zip(needed, chosen, strict=True))
                yield Action(tool.name, {**_others(tool, main, values, arguments), **arguments}, "write")


def _others(
    tool: Tool,
    main: Mapping[tuple[str, ...], list[Any]],
    values: Sequence[Mapping[tuple[str, ...], list[Any]]],
    known: Mapping[str, Any],
) -> dict[str, Any]:
    """Arguments that are no ids: of the user's rows where they have such a field, else the first that the schema allows."""
    made = {}
    for name in tool.parameters.get("required", ()):
        if name not in known:
            words, schema = tuple(words_of(name)), tool.parameters["properties"][name]
            own = main.get(words) or next((mine[words] for mine in values if mine.get(words)), [])
            simple = {"integer": 1, "number": 1, "boolean": True, "array": [], "object": {}}.get(
                str(schema.get("type")), "no longer needed"
            )
            made[name] = schema["enum"][0] if schema.get("enum") else own[0] if own else simple
    return made


def measure(world: World, contexts: int) -> list[tuple[str, float]]:
    """The figures of one world: contexts of anybody in its state, of whatever split."""
    reader = world.foreign.reader(world.shared.base)
    excerpt, times, acting, working, edges = Excerpt(), list[float](), 0, 0, 0
    users = list(reader.links.people)
    world.foreign.context(world, users, Excerpt(edge_cases=1), Random(0))
    for seed in range(contexts):
        start = time.perf_counter()
        _, data = world.foreign.context(world, users, excerpt, Random(seed))
        times.append(time.perf_counter() - start)
        calls = [call for call in calls_of(world, reader, data) if _fits(world.tools[call.name], call)]
        acting += bool(calls)
        working += any(world.fork().call(call.name, call.arguments).ok for call in calls)
        edges += "chosen_because" in data
    return [
        (f"{world.name}: share of contexts with something to act on (must {MUST:g})", acting / contexts),
        (f"{world.name}: share in which such a call is carried out", working / contexts),
        (f"{world.name}: share chosen for a row at a limit", edges / contexts),
        (f"{world.name}: ms of a context, median", 1000 * statistics.median(times)),
        (f"{world.name}: rows", float(len(reader.links.rows))),
    ]


def _fits(tool: Tool, call: Action) -> bool:
    try:
        tool.validate(dict(call.arguments))
    except Refused:
        return False
    return True


def main() -> int:
    """Measure and publish; ends with 1 when a share is too small."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contexts", type=int, default=200, help="of each world")
    sizes = parser.parse_args()
    figures = [figure for world in worlds() for figure in measure(world, sizes.contexts)]
    publish("contexts", figures, vars(sizes))
    return 1 if any(value < MUST for label, value in figures if "(must" in label) else 0


if __name__ == "__main__":
    sys.exit(main())
