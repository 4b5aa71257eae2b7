"""`cairn doctor`: everything that a run stands on, looked at once and said in lines, each with what mends it.

A check is a function from a `Place` to findings, in the file of what it looks at; a new one is a function and a line in CHECKS. None
may hang: after ten seconds its place is taken by a warning (`time_box`). Those of READING read every kept byte, which takes as long as
it takes; `--quick` leaves them out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flows.doctor import databases, installed, kept, machine, registry, remotes, runs, servers, surroundings
from flows.doctor.finding import Finding, Place, Severity, error
from flows.doctor.time_box import LIMIT, Find, in_words, within
from tasks.contract.params import BadInput
from tasks.engine.artifact import Store


@dataclass(frozen=True)
class Check:
    """part: what it looks at, for messages. planned: it needs params that can be used."""

    part: str
    find: Find
    planned: bool = False


CHECKS = (
    Check("python", machine.python),
    Check("versions", installed.numeric),
    Check("packages", installed.packages),
    Check("upgrade", installed.upgrade),
    Check("inherited", surroundings.settings),
    Check("disk", machine.disks),
    Check("gpu", machine.gpu),
    Check("servers", servers.prefect),
    Check("servers", servers.deployments),
    Check("servers", servers.mlflow),
    Check("servers", servers.of_roles, planned=True),
    Check("servers", servers.of_engines, planned=True),
    Check("databases", databases.databases),
    Check("registry", registry.registry, planned=True),
    Check("remotes", remotes.remote),
    Check("locks", runs.locks),
    Check("leftovers", runs.work),
    Check("leftovers", kept.leftovers),
    Check("hashes", kept.hashes),
    Check("records", kept.records),
)
"""Made within LIMIT seconds each."""
READING = (Check("store", kept.stored), Check("views", kept.views))
"""Read what is kept, byte by byte."""
STAGES = (Check("stages", kept.stages, planned=True),)
WORKSPACE = (Check("workspace", kept.workspace, planned=True),)
RUNS = (Check("runs", runs.set_right), Check("runs", runs.shown_as_running))
"""Prefect's own server may have to start for the first of them, which takes longer than LIMIT."""


def place() -> Place:
    """This project. BadInput outside of one. Params that cannot be used are a finding; what needs none is looked at."""
    from flows import OUTSIDE, PROJECT, STATE
    from flows.run import open_plan

    if OUTSIDE:
        raise BadInput(OUTSIDE)
    try:
        plan = open_plan(room=False)
    except BadInput as wrong:
        return Place(PROJECT, Store(STATE), why=str(wrong))
    return Place(plan.settings.project, plan.store, plan)


def examine(place: Place, quick: bool = False, limit: float = LIMIT) -> Iterator[Finding]:
    """What all checks find, as they find it. quick: without reading every kept byte. limit: seconds of a check that reads none."""
    if place.plan is None:
        yield error("params", place.why, "do what this message says; `cairn run --dry-run` checks the params again")
    for check in CHECKS:
        if place.plan is not None or not check.planned:
            yield from within(check.part, check.find, place, limit)
    patient = (*STAGES, *RUNS) if quick else (*READING, *STAGES, *WORKSPACE, *RUNS)
    for check in patient:
        if place.plan is not None or not check.planned:
            yield from in_words(check.part, check.find, place)


def exit_code(findings: list[Finding]) -> int:
    """1 when an error was found, else 0; warnings and notes change nothing."""
    return int(any(one.severity is Severity.ERROR for one in findings))
