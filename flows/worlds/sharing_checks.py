"""Checks that calls are remembered by the state alone: not by rows that all forks share, nor by objects, classes and globals."""

from __future__ import annotations

import inspect
import linecache
import re
import sys
from collections.abc import Callable, Collection, Mapping, MutableMapping, MutableSequence, MutableSet
from contextlib import suppress
from typing import Any

from flows.worlds.clock_watch import apart
from flows.worlds.fingerprints import changed, changed_globals, globals_of, print_of
from flows.worlds.report import REMEDIES, Check, Finding, first_of_each
from flows.worlds.sample import Call, Sample, led_up, own_files
from tasks.worlds.api.places import line_of, location
from tasks.worlds.api.runtime import World
from tasks.worlds.api.tools import marked

SHARED = (
    "Conversations run side by side and would see each other. Let each object have its own (self.rows = ..., in __init__), or declare "
    'conversations="own_process", with snapshot= and restore= that reach it.'
)
"""What to do about objects that share something."""


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


class OfObjects:
    """What the objects of an adapted world may share: classes and globals of the modules that hold their code. It is noted when this is
    made, before anything is called."""

    def __init__(self, cls: Any, address: str) -> None:
        code: Callable[[], Mapping[str, Any]] | None = getattr(cls.FOREIGN.source, "code_by_tool", None)
        self._code = {} if code is None or apart(cls) else code()
        holders = {str(getattr(sys.modules.get(function.__module__), "__file__", None)) for function in self._code.values()}
        self._files = frozenset(holders | own_files(address)) if self._code else frozenset()
        self._before = globals_of(self._files)

    def check(self, sample: Sample) -> Check:
        """No call has changed any of it since."""
        if not self._files:
            return Check("shared state", "", notes=("the tools run elsewhere, or are no Python: what they share is not looked into",))
        if not sample.world.foreign.source.side_by_side:
            return Check("shared state", "", notes=("declared: snapshot and restore reach what is shared; see conversations",))
        names = dict.fromkeys(changed_globals(self._before, globals_of(self._files)))
        findings = [self._shared(sample, name, "calls change") for name in names]
        if not holds_anything(sample.world.fork().state.value):  # where no call is carried out, nothing could be seen to change
            writing = [code for tool, code in self._code.items() if sample.world.tools[tool].kind == "write"]
            used = dict.fromkeys(name for code in writing for name in kept_outside(code) if name not in names)
            findings += [self._shared(sample, name, "the object holds nothing, and tools that write use") for name in used]
        said = f"{len(sample.calls)} calls left classes and globals of {len(self._files)} files alone"
        return Check("shared state", "calls are remembered outside the state" if findings else said, tuple(findings))

    def _shared(self, sample: Sample, name: str, what: str) -> Finding:
        """At the first line that mentions it, of a tool that writes if one does."""
        order = sorted(self._code, key=lambda tool: sample.world.tools[tool].kind != "write")
        lines = {tool: line for tool in order if (line := _mention(self._code[tool], name))}
        where = next((location(self._code[tool].__code__.co_filename, line) for tool, line in lines.items()), "")
        by = f" ({', '.join(lines)} mention it)" if lines else ""
        return Finding(where, f"{what} {name}{by}, which all conversations share and which is no part of the state", SHARED)


def kept_outside(function: Callable[..., Any]) -> list[str]:
    """The lists, dicts and sets of a method's class and module that its code names."""
    space = getattr(function, "__globals__", {})
    cls = space.get(function.__qualname__.rpartition(".")[0])
    held = {f"{cls.__qualname__}.{name}": value for name, value in vars(cls).items()} if isinstance(cls, type) else {}
    held |= {f"{function.__module__}.{name}": value for name, value in space.items() if not name.startswith("__")}
    kinds = (MutableMapping, MutableSequence, MutableSet)
    return [name for name, value in held.items() if isinstance(value, kinds) and name.rpartition(".")[2] in function.__code__.co_names]


def holds_anything(value: Any) -> bool:
    """Whether nested JSON holds any value."""
    if isinstance(value, dict | list):
        return any(map(holds_anything, value.values() if isinstance(value, dict) else value))
    return True


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
