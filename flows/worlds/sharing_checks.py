"""Checks that calls are remembered by the state alone: not by rows that all forks share, nor by objects, classes and globals."""

from __future__ import annotations

import inspect
import linecache
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

from flows.worlds.fingerprints import changed, changed_globals, globals_of, print_of
from flows.worlds.report import REMEDIES, Check, Finding, first_of_each
from flows.worlds.sample import Call, Sample, led_up
from tasks.worlds.api.places import line_of, location
from tasks.worlds.api.runtime import World
from tasks.worlds.api.tools import marked


def stored_rows(sample: Sample, build: Callable[[], World]) -> Check:
    """No call has changed a row that all forks share, past the state. build: makes the world anew."""
    rows = sum(map(len, sample.world.shared.base.tables.values()))
    said = f"{rows} rows are as tables() made them"
    if print_of(sample.world.shared.base.tables) == print_of(build().shared.base.tables):
        return Check("stored rows", said)
    pairs = []
    for call in sample.calls:
        fork = led_up(build(), call)
        before = print_of(fork.shared.base.tables)
        fork.call(call.action.name, call.action.arguments)
        if print_of(fork.shared.base.tables) != before:
            what = f"tool {call.action.name} changes a stored row in place, past the state: {call.words}"
            pairs.append((call.action.name, Finding(sample.place(call.action.name), what, REMEDIES["in place"])))
    unknown = (("", Finding("", "a stored row was changed in place while problems were made", REMEDIES["in place"])),)
    return Check("stored rows", said, first_of_each(pairs or unknown))


def shared_state(sample: Sample) -> Check:
    """No call changes the world's object, its classes or the globals of its modules."""
    own = marked(sample.world.shared.cls)
    if not own:
        return Check("shared state", "", notes=("the tools are no methods of the world's class; what they share is not looked into",))
    calls = [call for call in sample.calls if call.action.name in own]
    before = globals_of(sample.files)
    changes = {(call.action.name, name): None for call in calls for name in changed_by(sample, call, ())}
    if changed_globals(before, globals_of(sample.files)):  # printing everything around every call is left to when it is needed
        changes |= {(call.action.name, name): None for call in calls for name in changed_by(sample, call, sample.files)}
    # What changes once and then stays, such as a set of things seen, has changed already while problems were drawn.
    once = [name for name in changed_globals(sample.before, globals_of(sample.files)) if name not in {name for _, name in changes}]
    changes.update({(tool, name): None for name in once for tool in own if _mention(own[tool], name)})
    notes = [f"{name} was changed while problems were made, by no tool" for name in once if name not in {name for _, name in changes}]
    findings = tuple(_remembers(sample, tool, name) for tool, name in changes)
    said = f"{len(sample.calls)} calls left attributes of objects and classes and globals of {len(sample.files)} files alone"
    return Check("shared state", "calls are remembered outside the state" if findings else said, findings, tuple(notes))


def changed_by(sample: Sample, call: Call, files: Collection[str]) -> list[str]:
    """Attributes of the world's object, and globals of the modules in `files`, that one call changes."""
    fork = led_up(sample.world, call)
    code = sample.world.shared.cls(fork.state)

    def own() -> dict[str, Any]:
        return {f"self.{name}": print_of(value) for name, value in vars(code).items()}

    before, known = own(), globals_of(files)
    with suppress(Exception, SystemExit):  # what fails is told by the check of calls
        getattr(code, call.action.name)(**sample.world.tools[call.action.name].validate(call.action.arguments))
    return [*changed(before, own()), *changed_globals(known, globals_of(files))]


def _remembers(sample: Sample, tool: str, name: str) -> Finding:
    """The line of the tool that mentions what is changed, else the tool's own."""
    function = getattr(sample.world.shared.cls, tool)
    line = _mention(function, name)
    where = location(function.__code__.co_filename, line) if line else sample.place(tool)
    return Finding(where, f"tool {tool} changes {name}, which is no part of the state", REMEDIES["shared"])


def _mention(function: Any, name: str) -> int:
    """The first line of a function's body that holds the last part of a name; 0 when none does."""
    length, code = 0, function.__code__
    with suppress(OSError):
        length = len(inspect.getsourcelines(function)[0])
    word = re.compile(rf"\b{re.escape(name.rpartition('.')[2])}\b")
    lines = range(line_of(function) + 1, code.co_firstlineno + length)
    return next((number for number in lines if word.search(linecache.getline(code.co_filename, number))), 0)
