"""`cairn world check` on states that are not apart, not equal, or changed past what was handed out: found, with the declaration to write.

Worked by hand: two objects over one global, one closes a ticket and the other loses it. A clock in a field is named by its path, a sum
with noise by a step. Limit: what is declared, or needs no declaration, is green.
"""

from __future__ import annotations

import random
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flows.worlds import apart_checks, call_checks, check, process_checks
from flows.worlds.report import Check
from flows.worlds.sample import FORMATS, Call, draw, of_format
from tasks.contract.params import BadInput
from tasks.contract.problem import Action
from tasks.worlds.adapters import from_object
from tasks.worlds.adapters.unequal_states import declaration
from tasks.worlds.api.runtime import World
from tests.worlds import desk

PROBLEMS = Path(__file__).with_name("desk.jsonl")


def adapted(factory: Any = desk.Desk, **more: Any) -> Any:
    return from_object(factory, name="desk", policy=desk.POLICY, writes=("close",), problems_file=PROBLEMS, **more)


class Undeclared(adapted(snapshot=desk.dump, restore=desk.bring, tools=("look", "close"))):  # type: ignore[misc]
    """Tickets in a global, and nothing said of it."""


class InTurn(
    adapted(snapshot=desk.dump, restore=desk.bring, tools=("look", "close"), conversations="one_at_a_time")  # type: ignore[misc]
):
    """The same, declared."""


class Stamped:
    """Tickets with a clock, an id made anew and a sum with noise."""

    def __init__(self) -> None:
        self.tickets: dict[str, dict[str, Any]] = {f"T{n}": {"state": "open", "at": 0.0, "cost": 1.0} for n in range(20)}

    def close(self, ticket_id: str) -> str:
        """Close a ticket."""
        ticket = self.tickets[ticket_id]
        ticket.update(state="closed", at=time.time(), cost=3.0 + random.SystemRandom().random() * 1e-9)
        return "closed"


class Noisy(adapted(Stamped)):  # type: ignore[misc]
    """Nothing said of clock and noise."""


class Steady(adapted(Stamped, leave_out=("tickets.*.at",), rounded={"tickets.*.cost": 0.001})):  # type: ignore[misc]
    """Both declared."""


class Past:
    """Changes a row past the methods of the dict that holds it, as code in C can."""

    def __init__(self) -> None:
        self.tickets: dict[str, dict[str, Any]] = {f"T{n}": {"state": "open"} for n in range(20)}

    def close(self, ticket_id: str) -> str:
        """Close a ticket."""
        dict.__getitem__(self.tickets, ticket_id)["state"] = "closed"
        return "closed"


class Passed(adapted(Past)):  # type: ignore[misc]
    """Copied row by row."""


class Whole(adapted(Past, by_row=False)):  # type: ignore[misc]
    """Copied whole."""


def sample(cls: Any) -> Any:
    return draw(World.build(cls, 1, 0, f"{__name__}:{cls.__name__}"), 4, 0)


def told(found: Check) -> str:
    return "\n".join([*(f"{one.what} -> {one.remedy}" for one in found.findings), *found.notes])


def test_conversations_that_are_not_apart_are_found() -> None:
    found = told(apart_checks.conversations(sample(Undeclared)))
    assert "tool close: two conversations are not apart" in found
    assert 'conversations="one_at_a_time"' in found and 'conversations="own_process"' in found
    declared = apart_checks.conversations(sample(InTurn))
    assert declared.ok and "7 pairs of conversations side by side" in declared.summary
    unknown = sample(Whole)
    unknown.calls = [Call(Action("close", {"ticket_id": "T99"}, "write"), (), False)]
    nothing = apart_checks.conversations(unknown)
    assert nothing.ok and "nothing could be compared" in told(nothing)


def test_what_is_not_the_same_alone_is_told_as_that_first() -> None:
    """Before anybody declares that objects share something."""
    assert "determinism" not in told(apart_checks.conversations(sample(Undeclared)))
    assert "not the same twice alone either" in told(apart_checks.conversations(sample(Noisy)))


def test_a_clock_whose_time_is_left_out_is_a_note() -> None:
    """One that shows in what counts is a fault, with a remedy that an object can follow."""
    left_out, shown = (call_checks.Repeats(sample(cls)) for cls in (Steady, Noisy))
    assert left_out.watched("clock").ok and "tool close reads the clock (time.time)" in told(left_out.watched("clock"))
    assert (
        not shown.watched("clock").ok and "leave_out" in told(shown.watched("clock")) and "tables()" not in told(shown.watched("clock"))
    )
    assert "leave_out" in told(shown.determinism()) and "self.db" not in told(shown.determinism())


def test_how_states_are_copied_is_said_and_proven() -> None:
    found = apart_checks.copies(sample(Passed))
    assert found.summary.startswith("20 rows of 1 tables one by one") and "compared with a look at the whole" in found.summary
    assert "changes the state past the dicts that it was handed: - tickets.T" in told(found) and "Pass by_row=False." in told(found)
    whole = apart_checks.copies(sample(Whole))
    assert whole.ok and whole.summary.startswith("no large dict near the top, ")
    assert apart_checks.copies(sample(Steady)).ok


def test_what_differs_between_two_runs_is_named_with_its_declaration() -> None:
    noisy = sample(Noisy)
    one, other = (process_checks.record(noisy) for _ in range(2))
    (found, *_) = process_checks._compare(noisy, one, other)
    assert "leaves two states in two processes" in found.what and "tickets.T" in found.what
    assert 'leave_out=("tickets.T' in found.remedy and '.at",)' in found.remedy and "rounded={" in found.remedy
    steady = sample(Steady)
    assert not list(process_checks._compare(steady, *(process_checks.record(steady) for _ in range(2))))


@dataclass
class Note:
    text: str
    key: str = field(default_factory=lambda: str(uuid.uuid4()))


class Naming(Stamped):
    """Rows of a class of its own, which name themselves by chance."""

    def close(self, ticket_id: str) -> str:
        """Close a ticket."""
        self.tickets[ticket_id]["note"] = made = Note("closed")
        return made.key


class Named(adapted(Naming)):  # type: ignore[misc]
    """Nothing said of the ids."""


def test_ids_that_rows_give_themselves_by_chance_are_told_once_with_what_to_write() -> None:
    """The answer differs here and in every other process for one reason, which the remedies name or point to."""
    named = sample(Named)
    repeats = call_checks.Repeats(named)
    chance, differs = told(repeats.watched("random")), told(repeats.determinism())
    assert "calls uuid.uuid4" in chance and "A class whose rows name themselves takes the id as an argument." in chance
    assert "getrandbits(128)" in differs and "is not deterministic" in differs
    found = list(process_checks._compare(named, process_checks.record(named), process_checks.record(named)))
    assert [one.remedy for one in found] == ["It is not the same twice alone either: begin with what `determinism` says."]


class SelfNamed(Naming):
    def __init__(self) -> None:
        super().__init__()
        self.notes = {made.key: made for made in (Note("a"), Note("b"))}


def test_a_start_that_is_not_twice_the_same_points_to_the_world_and_to_no_table_of_cairns() -> None:
    made = adapted(SelfNamed)
    made.__module__, made.__qualname__ = __name__, "Named"
    (found,) = check.check(made, 1, 0, 1)["tables"].findings
    assert "notes is named or counted anew each time: count its keys up" in found.what
    assert "tables()" not in f"{found.what}{found.remedy}" and "adapted.py" not in found.where


def test_a_day_is_no_moment() -> None:
    """Where the rows hold moments alone an argument that is a day gets their days, and where nothing of a format is known an example."""
    assert of_format(["2026-03-04T10:00:00", "W1"], "date") == ["2026-03-04"]
    assert of_format(["2026-03-04", "2026-03-04T10:00:00Z"], "date-time") == ["2026-03-04T10:00:00Z"]
    assert of_format(["W1"], "date") == ["2026-01-05"] and of_format(["W1"], "color") == ["W1"]
    for name, example in FORMATS.items():
        assert of_format([example], name) == [example]


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        ("+ a.at: 1", "+ a.at: 2", 'Write leave_out=("a.at",).'),
        ("+ o.x.at: 1\n+ o.y.at: 5", "+ o.x.at: 2\n+ o.y.at: 6", 'Write leave_out=("o.*.at",).'),
        (
            '- o.x.log[0].at: "a"\n+ o.x.log[0].at: "b"',
            '- o.x.log[0].at: "a"\n+ o.x.log[0].at: "c"',
            'Write leave_out=("o.x.log.at",).',
        ),
        ("+ a.sum: 3.0000000001", "+ a.sum: 3.0000000002", 'Write rounded={"a.sum": 1e-07}.'),
        ('+ o.K1: {"n":1}', '+ o.K2: {"n":1}', "What stands under o is named or counted anew each time"),
        ("", "", "Take clocks and random numbers out."),
    ],
)
def test_declarations_by_hand(one: str, other: str, says: str) -> None:
    assert says in declaration(one, other)


class Clocked(Stamped):
    def __init__(self) -> None:
        super().__init__()
        self.made = time.perf_counter_ns()


def test_a_factory_that_gives_two_states_says_what_to_write() -> None:
    with pytest.raises(BadInput, match=r'makes a different state each time \(- made: .*Write leave_out=\("made",\)'):
        World.build(adapted(Clocked), 1, 0)
