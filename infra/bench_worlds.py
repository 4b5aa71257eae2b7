"""What a world costs at 10,000 rows: fork, reset, snapshot, restore, state hash, a tool call; and fuzzed calls that must not hurt it.

Three worlds: one out of plain objects with the rows of tau2's retail (`infra.bench_objects`), a ledger of 10,000 rows and the built-in
retail with 2,000 users (some 9,000 rows). Medians over single operations, each after one write, in microseconds; the cost of a call is
that of `World.call` minus that of the method alone, in alternation. The peer's figures are tau2's retail (114 problems, its own
database), measured on a 2-core CPU."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from infra.bench import publish
from infra.bench_lines import Line
from infra.bench_objects import object_lines
from tasks.worlds.api.runtime import World
from tasks.worlds.api.state import State
from tasks.worlds.api.tools import read, write

ROWS = 10_000
USERS = 2_000
RETAIL, AIRLINE = "tasks.worlds.library.retail:Retail", "tasks.worlds.library.airline:Airline"
MILLISECOND = 1000.0
CALL = 50.0
"""What a call may cost over the bare method, in microseconds, with its arguments checked against the schema."""

FUZZED = "fuzzed calls, none a crash, none a change without success"


class Ledger:
    """A world of as many entries as asked for."""

    NAME = "ledger"
    POLICY = "R1. Every entry is right."

    def __init__(self, db: State) -> None:
        self.db = db

    @staticmethod
    def tables(size: int, seed: int) -> dict[str, Any]:
        """`size` entries of three users."""
        entries = {
            f"E{number}": {"user": f"u{number % 3}", "amount": number, "kind": "in", "lines": [{"item": "mug", "price": 9.5}] * 2}
            for number in range(size)
        }
        return {"users": {f"u{number}": {"name": f"User {number}"} for number in range(3)}, "entries": entries}

    @read()
    def get_entry(self, entry_id: str) -> dict[str, Any]:
        """Look an entry up.

        Args:
            entry_id: such as E17.
        """
        return self.db.get("entries", entry_id) or {}

    @write()
    def set_entry(self, entry_id: str, amount: int, kind: Literal["in", "out"], note: str | None = None) -> dict[str, Any]:
        """Change an entry.

        Args:
            entry_id: such as E17.
            amount: the new amount.
            kind: money that comes or goes.
            note: a remark.
        """
        self.db.update("entries", entry_id, amount=amount, kind=kind, note=note)
        return {"ok": True}


def median_of(work: Callable[[], Any], rounds: int, before: Callable[[], Any] = lambda: None) -> float:
    """Median time of `work` in microseconds; `before` runs before each and is not counted."""
    times = []
    for _ in range(rounds):
        before()
        start = time.perf_counter_ns()
        work()
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1000


def over(call: Callable[[], Any], bare: Callable[[], Any], rounds: int) -> float:
    """What `call` costs more than `bare`, in microseconds: medians, the two in alternation."""
    sides: tuple[list[int], list[int]] = [], []
    for _ in range(rounds):
        for work, times in zip((call, bare), sides, strict=True):
            start = time.perf_counter_ns()
            work()
            times.append(time.perf_counter_ns() - start)
    through, alone = (statistics.median(times) / 1000 for times in sides)
    return through - alone


def state_lines(name: str, world: World, change: Callable[[World, int], Any], rounds: int) -> list[Line]:
    """What the state of a world costs. change(world, n): one write, another one for each n."""
    numbers = iter(range(10**9))

    def changed() -> None:
        change(world, next(numbers))

    rows = sum(len(table) for table in world.shared.base.tables.values())
    world.state_hash()  # the start is hashed once and shared by all forks
    lines = [Line(f"{name}, {rows:,} rows: fork", median_of(world.fork, rounds), MILLISECOND, "126000 to create")]
    changed()
    lines += [Line(f"{name}, {rows:,} rows: snapshot", median_of(world.snapshot, rounds, changed), MILLISECOND)]
    kept = world.snapshot()
    lines += [
        Line(f"{name}, {rows:,} rows: restore", median_of(lambda: world.restore(kept), rounds, changed), MILLISECOND),
        Line(f"{name}, {rows:,} rows: reset", median_of(world.reset, rounds, changed), MILLISECOND, "126000 to create"),
    ]
    lines += [
        Line(f"{name}, {rows:,} rows: state hash after a write", median_of(world.state_hash, rounds, changed), MILLISECOND, "58000")
    ]
    world.reset()
    return lines


def rewritten(world: World, rounds: int) -> list[Line]:
    """The worst case: every entry of the ledger was changed."""
    entries = list(world.shared.base.tables["entries"])

    def everything() -> None:
        for number, key in enumerate(entries):
            world.state.update("entries", key, amount=-1 - number)

    everything()
    kept = world.snapshot()
    what = f"ledger, all of {len(entries):,} rows changed"
    numbers = iter(range(10**9))
    world.state_hash()
    written = median_of(world.state_hash, rounds, lambda: world.state.update("entries", entries[0], amount=next(numbers)))
    lines = [
        Line(f"{what}: state hash after a write", written, MILLISECOND),
        Line(f"{what}: snapshot", median_of(world.snapshot, rounds), MILLISECOND),
        Line(f"{what}: restore", median_of(lambda: world.restore(kept), rounds), MILLISECOND),
        Line(f"{what}: reset", median_of(world.reset, rounds, lambda: world.restore(kept)), MILLISECOND),
    ]
    world.reset()
    return lines


def call_lines(name: str, world: World, tool: str, arguments: dict[str, Any], rounds: int) -> list[Line]:
    """What a call of one tool costs over the method alone, on a state of its own."""
    bare = getattr(world.shared.cls(State(world.shared.base)), tool)
    if not (result := world.call(tool, arguments)).ok:
        raise SystemExit(f"{name}: {tool} refuses {arguments}: {result.content}")
    cost = over(lambda: world.call(tool, arguments), lambda: bare(**arguments), rounds)
    world.reset()
    return [Line(f"{name}: {tool} over the bare method", cost, CALL, "210 a call")]


def fuzz_lines(count: int, seed: int) -> list[Line]:
    """Fuzzed calls, half of them in each built-in world; a fault ends the benchmark with the conversation that shows it."""
    from infra.fuzz import fuzz
    from tasks.worlds.api.loading import world_class

    lines = []
    for address in (RETAIL, AIRLINE):
        world = World.build(world_class(address), 100, 7, address)
        tally = fuzz(world, -(-count // 2), seed)
        lines += [
            Line(f"{world.name}: {FUZZED}", tally.calls),
            Line(f"{world.name}: of these carried out", tally.ok),
            Line(f"{world.name}: of these changing the state", tally.changed),
        ]
    return lines


def measure(rows: int, users: int, rounds: int) -> list[Line]:
    """Everything but the fuzzed calls."""
    from tasks.worlds.api.loading import world_class

    ledger = World.build(Ledger, rows, 0)
    retail = World.build(world_class(RETAIL), users, 0, RETAIL)
    orders = retail.shared.base.tables["orders"]
    pending = next(key for key, row in orders.items() if row["status"] == "pending")
    entry = {"entry_id": "E1", "amount": -1, "kind": "out", "note": "corrected"}
    address = {"order_id": pending, "address": "1 Oak Street"}
    return [
        *state_lines("ledger", ledger, lambda world, n: world.state.update("entries", f"E{n % rows}", amount=-n), rounds),
        *rewritten(ledger, max(1, rounds // 20)),
        *state_lines("retail", retail, lambda world, n: world.state.update("orders", pending, address=f"{n} Oak Street"), rounds),
        *call_lines("ledger", ledger, "get_entry", {"entry_id": "E1"}, rounds),
        *call_lines("ledger", ledger, "set_entry", entry, rounds),
        *call_lines("retail", retail, "get_order", {"order_id": pending}, rounds),
        *call_lines("retail", retail, "change_address", address, rounds),
    ]


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="of the ledger")
    parser.add_argument("--users", type=int, default=USERS, help="of retail; each has some 4.5 rows")
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--fuzz", type=int, default=100_000, help="fuzzed calls; 0 for none")
    parser.add_argument("--seed", type=int, default=0, help="of the fuzzed calls")
    parser.add_argument("--db", type=Path, help="tables of the world out of objects: a JSON file with users and orders")
    asked = parser.parse_args()
    lines = measure(asked.rows, asked.users, asked.rounds) + object_lines(min(asked.rounds, 300), asked.db)
    if asked.fuzz:
        lines += fuzz_lines(asked.fuzz, asked.seed)
    missed = [line.what for line in lines if line.missed]
    fuzzed = sum(line.value for line in lines if FUZZED in line.what)
    print(f"microseconds, medians of {asked.rounds}; fuzzed calls: {fuzzed:,.0f}; missed: {'; '.join(missed) or 'none'}")
    publish("worlds", [(line.label, line.value) for line in lines], {**vars(asked), "db": str(asked.db or "")})
    return 0


if __name__ == "__main__":
    sys.exit(main())
