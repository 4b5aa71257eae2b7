"""Checks of the state: its hash, snapshots that are whole and apart from the live state, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import combinations
from random import Random
from statistics import median
from typing import Any

from flows.worlds.fingerprints import print_of
from flows.worlds.report import REMEDIES, Check, Finding, first_of_each
from flows.worlds.sample import Call, Sample
from tasks.contract.params import BadInput
from tasks.contract.problem import Action
from tasks.worlds import GRADED_WITHOUT_STATE
from tasks.worlds.api.places import place
from tasks.worlds.api.runtime import World

PAIRS = 200
"""Pairs of writes that are made in both orders; ours."""
LIMIT = 1e-3
"""Seconds that a reset, a snapshot or a restore may take."""
ROUNDS = 200
"""Times that each is measured."""


def _after(world: World, call: Call) -> World:
    fork = world.fork()
    for action in (*call.before, call.action):
        fork.call(action.name, action.arguments)
    return fork


def state_hash(sample: Sample) -> Check:
    """Look-ups leave the hash alone, writes change it, and independent writes may be made in any order."""
    world, pairs = sample.world, []
    if not world.compared:
        notes = [f"{world.name}: {GRADED_WITHOUT_STATE}"]
        if all(tool.kind == "read" for tool in world.tools.values()):
            notes.append("no tool is declared to write, so all are taken for look-ups; one that does write must be named (writes)")
        return Check("state hash", "the state is not compared", notes=tuple(notes))
    reads = [call for call in sample.calls if call.action.kind != "write"]
    for call in reads:
        fork = world.fork()
        for action in call.before:
            fork.call(action.name, action.arguments)
        before = fork.state_hash()
        fork.call(call.action.name, call.action.arguments)
        if fork.state_hash() != before:
            what = f"tool {call.action.name} is no write, and the state hash differs after {call.words}"
            pairs.append((call.action.name, Finding(sample.place(call.action.name), what, "Mark it @write, or let it only look.")))
    writes = [call for call in sample.calls if call.action.kind == "write"]
    pairs += _idle_writes(sample, writes)
    orders, found = _orders(sample)
    said = f"{len(reads)} look-ups leave it alone; {len(writes)} writes; {orders} pairs of independent writes in both orders"
    return Check("state hash", said, first_of_each(pairs + found))


def _idle_writes(sample: Sample, writes: list[Call]) -> list[tuple[str, Finding]]:
    """Tools marked as writes that never change anything in a ground truth."""
    changed: dict[str, bool] = {}
    for call in writes:
        if call.truth:
            before, after = sample.world.replay(call.before), sample.world.replay((*call.before, call.action))
            name = call.action.name
            changed[name] = changed.get(name, False) or (after.state_hash != before.state_hash and after.diff != before.diff)
    told = "Let it write through self.db, or mark it @read."
    what = "is marked as a write and changes nothing in any ground truth"
    return [(name, Finding(sample.place(name), f"tool {name} {what}", told)) for name, did in changed.items() if not did]


def _orders(sample: Sample) -> tuple[int, list[tuple[str, Finding]]]:
    """Pairs of writes of different rows, made in both orders."""
    world = sample.world
    writes = {repr(action): action for problem in sample.everything for action in problem.actions if action.kind == "write"}
    every = list(combinations(writes.values(), 2))
    tried, found = 0, []
    for one, other in Random(0).sample(every, min(PAIRS, len(every))):
        if not _apart(world, one, other):
            continue
        forward, backward = world.replay((one, other)), world.replay((other, one))
        if not forward.ok or not backward.ok:
            continue
        tried += 1
        if forward.state_hash != backward.state_hash:
            what = f"tools {one.name} and {other.name} write different rows, and the state depends on which comes first"
            told = "Derive the keys of new rows from the arguments; a counter makes them depend on the order."
            found.append((one.name, Finding(sample.place(one.name), what, told)))
    return tried, found


def _apart(world: World, one: Action, other: Action) -> bool:
    """Whether two writes concern different rows: they change none of the start together, and neither replaces the other's new row."""
    first, second, both = _rows(world, one), _rows(world, other), _rows(world, one, other)
    if first is None or second is None or both is None:
        return False
    return not first[0] & second[0] and len(both[1]) == len(first[1]) + len(second[1])


def _rows(world: World, *actions: Action) -> tuple[set[Any], set[Any]] | None:
    """(table, key) of the rows of the start that writes change, and of the new ones; None when one is refused, or without tables."""
    fork = world.fork()
    changes: Callable[[], Any] | None = getattr(fork.state, "changes", None)
    if changes is None or not all(fork.call(action.name, action.arguments).ok for action in actions):
        return None
    made = [((table, key), before is None) for table, key, before, _ in changes()]
    return {row for row, new in made if not new}, {row for row, new in made if new}


# --- snapshots ---


def snapshots(sample: Sample) -> Check:
    """What comes after a snapshot does not change it; restore and reset bring back hash, difference and answers."""
    pairs = []
    writes = [call for call in sample.calls if call.action.kind == "write"]
    for call in writes:
        for what, told in _faults(sample.world, call):
            pairs.append((call.action.name, Finding(sample.place(call.action.name), f"tool {call.action.name}: {what}", told)))
    for name in dict.fromkeys(call.action.name for call in writes) if sample.world.compared else ():
        if lost := _lost(sample.world, [call for call in writes if call.action.name == name]):
            what = f"what tool {name} wrote is not there again after it was restored ({lost})"
            pairs.append((name, Finding(sample.place(name), what, "Let restore take all that dump gives.")))
    return Check("snapshots", f"taken, overwritten and restored around {len(writes)} writes", first_of_each(pairs))


def _lost(world: World, calls: list[Call]) -> str:
    """What the thing behind an adapted world loses when it is really brought to the state after a write: its snapshots are promises."""
    lost_when_restored: Callable[[Any], str] | None = getattr(getattr(world.foreign, "source", None), "lost_when_restored", None)
    for call in calls if lost_when_restored is not None else ():
        fork = _after(world, call)
        if fork.diff() and lost_when_restored is not None:
            try:
                return lost_when_restored(fork.state.saved)
            except BadInput as error:
                return str(error)
    return ""


def _faults(world: World, call: Call) -> list[tuple[str, str]]:
    """(what is wrong, remedy) around one write, made once before the snapshot and once after it."""
    fork, found = _after(world, call), []
    taken, known, shown = fork.snapshot(), fork.state_hash(), fork.diff()
    written = print_of(taken)
    fork.call(call.action.name, call.action.arguments)
    twin = world.fork()
    if twin.diff():
        found.append(("a new fork begins with what another fork wrote", REMEDIES["in place"]))
    if print_of(taken) != written:
        found.append(("a snapshot shares memory with the live state: a write made after it has changed it", REMEDIES["in place"]))
    for one in (fork, twin):
        one.restore(taken)
        if (one.state_hash(), one.diff()) != (known, shown):
            found.append(("restore() does not bring back the state of the snapshot", REMEDIES["in place"]))
    fork.reset()
    if fork.diff() or fork.state_hash() != world.replay(()).state_hash:
        found.append(("reset() does not bring back the start", REMEDIES["in place"]))
    return found


# --- speed ---


def speed(sample: Sample) -> Check:
    """Median seconds of reset, snapshot and restore with the writes of one problem in the state."""
    world = sample.world
    fork = world.fork()
    longest = max(sample.everything, key=lambda problem: problem.n_writes, default=None)
    for action in longest.actions if longest else ():
        fork.call(action.name, action.arguments)
    taken = fork.snapshot()
    times = {
        "reset": _median(lambda: fork.reset(), lambda: fork.restore(taken)),
        "snapshot": _median(lambda: fork.snapshot()),
        "restore": _median(lambda: fork.restore(taken), lambda: fork.reset()),
    }
    rows = sum(len(table) for table in world.shared.base.tables.values())
    said = ", ".join(f"{name} {seconds * 1e6:.0f} us" for name, seconds in times.items())
    slow = {name: seconds for name, seconds in times.items() if seconds > LIMIT}
    told = "Copy only what changed: rows in self.db cost nothing, what a world's own code dumps and restores does."
    where = place(world.shared.cls.__init__)
    most = f"at most {LIMIT * 1e3:.0f} ms"
    findings = tuple(Finding(where, f"{name} takes {seconds * 1e3:.1f} ms; {most}", told) for name, seconds in slow.items())
    return Check("speed", f"{said} (medians of {ROUNDS}, {rows} rows; {most} each)", findings)


def _median(work: Callable[[], Any], prepare: Callable[[], Any] = lambda: None) -> float:
    times = []
    for _ in range(ROUNDS):
        prepare()
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return median(times)
