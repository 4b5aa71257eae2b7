"""tau2's packages by themselves, outside Cairn: what they say is what grading is held against."""

from __future__ import annotations

import gc
import importlib
import json
import pickle
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from random import Random
from types import ModuleType
from typing import Any, NamedTuple

from tasks.worlds.adapters.problem_file import row_problem
from tasks.worlds.api.loading import PROJECT, world_class
from tasks.worlds.api.runtime import World
from tasks.worlds.library.tau2 import FOLDER

ADDRESSES = {
    "retail": "tasks.worlds.library.tau2_retail:Tau2Retail",
    "airline": "tasks.worlds.library.tau2_airline:Tau2Airline",
}
Call = tuple[str, dict[str, Any]]
Calls = Sequence[Call]


class Task(NamedTuple):
    """One of the package's tasks."""

    task_id: str
    calls: Calls


class Package:
    """One package: its server's module, its tasks, and the database that calls leave. A database is kept as bytes, from which a copy of
    its own is made for each sequence of calls."""

    def __init__(self, domain: str) -> None:
        sys.path.append(str(PROJECT / FOLDER))
        try:
            self.server: ModuleType = importlib.import_module(f"tau2_{domain}_mcp.server")
        finally:
            sys.path.pop()
        data = PROJECT / FOLDER / f"tau2_{domain}_mcp/data/tau2/domains" / domain
        self._start = pickle.dumps(json.loads((data / "db.json").read_text()), protocol=pickle.HIGHEST_PROTOCOL)
        tasks = json.loads((data / "tasks.json").read_text())
        self.splits: dict[str, list[str]] = json.loads((data / "split_tasks.json").read_text())
        self.tasks = [
            Task(one["id"], [(call["name"], call["arguments"]) for call in one["evaluation_criteria"]["actions"]]) for one in tasks
        ]

    def played(self, calls: Calls) -> tuple[Any, list[tuple[bool, str]]]:
        """(the database after calls, (whether it worked, answer) of each), as the package's server runs them: what raises is an answer,
        and what it has changed by then stays."""
        gc.disable()  # it would walk through the new database again and again
        try:
            database = pickle.loads(self._start)
        finally:
            gc.enable()
        answers = []
        for name, arguments in calls:
            try:
                result = self.server._execute_tool(database, name, json.loads(json.dumps(arguments)))
                answers.append((True, self.server._content_from_result(result)))
            except Exception as error:
                answers.append((False, str(error)))
        return database, answers


@cache
def package(domain: str) -> Package:
    """The package of a domain, read once."""
    return Package(domain)


@cache
def world(domain: str) -> World:
    """The world of a domain, built once."""
    return World.build(world_class(ADDRESSES[domain]), 60, 0, ADDRESSES[domain])


@cache
def problems(domain: str) -> list[Any]:
    """The problem of each task, in the package's order."""
    built = world(domain)
    return [row_problem(built, row) for row in built.shared.base.tables["problems"].values()]


def mutants(tasks: Sequence[Task], count: int, seed: int) -> Iterator[tuple[int, str, Calls]]:
    """(place of a task, what was done, calls) of so many changed solutions: an argument changed, a call left out, made twice, exchanged
    for one of another task, or put elsewhere. None equals its task's own."""
    rng, pool = Random(seed), [call for task in tasks for call in task.calls]
    made = 0
    while made < count:
        place = rng.randrange(len(tasks))
        calls = list(tasks[place].calls)
        if not calls:
            continue
        kind, at = rng.choice(("argument", "argument", "left out", "twice", "exchanged", "moved")), rng.randrange(len(calls))
        if kind == "argument":
            calls[at] = _changed(calls[at], pool, rng)
        elif kind == "left out":
            del calls[at]
        elif kind == "twice":
            calls.insert(rng.randrange(at + 1, len(calls) + 1), calls[at])
        elif kind == "exchanged":
            calls[at] = rng.choice(pool)
        else:
            calls.insert(rng.randrange(len(calls)), calls.pop(at))
        if calls != tasks[place].calls:
            made += 1
            yield place, kind, calls


def _changed(call: Call, pool: Calls, rng: Random) -> Call:
    """The call with one argument as another call has it, or in another value of its type."""
    name, arguments = call
    if not arguments:
        return call
    argument = rng.choice(sorted(arguments))
    known = [other[argument] for _, other in pool if argument in other and type(other[argument]) is type(arguments[argument])]
    value = rng.choice(known) if rng.random() < 0.5 else _other(arguments[argument], rng)
    return name, {**arguments, argument: value}


def _other(value: Any, rng: Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + rng.choice((-1, 1))
    if isinstance(value, str):
        return rng.choice((f"{value}x", value.upper(), ""))
    if isinstance(value, list):
        return rng.choice((value[1:], value[::-1], [*value, *value[:1]], [_other(item, rng) for item in value]))
    key = rng.choice(sorted(value)) if value else "x"
    return {**value, key: _other(value.get(key, ""), rng)}
