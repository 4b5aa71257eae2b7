"""Prints of values: nested tuples that differ when anything in a value does, to see what a call has changed."""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Collection, Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any

from tasks.worlds.adapters.foreign_state import Saved
from tasks.worlds.api.state import State, canonical_json

_FIXED = (str, bytes, int, float, complex, bool, type(None), type(Ellipsis), range)
_SKIPPED = (ModuleType, State, type, logging.Logger)
Seen = dict[int, tuple[int, Any]]
"""id -> (number, the thing itself, which is so kept from being forgotten and its id from being used again)."""


def print_of(value: Any, seen: Seen | None = None) -> Any:
    """A value as nested tuples that compare equal when nothing in it has changed. Modules, classes, states and loggers count as one
    thing; what is met again is told by its number, so that cycles end."""
    kind = type(value)
    if isinstance(value, _FIXED):
        return kind.__name__, value
    if isinstance(value, _SKIPPED):
        return kind.__name__
    if isinstance(value, Saved):
        return kind.__name__, canonical_json(value.content.value())  # what it has worked out of its rows by now is no part of it
    seen = {} if seen is None else seen
    if id(value) in seen:
        return "again", seen[id(value)][0]
    seen[id(value)] = len(seen), value
    return kind.__name__, _contents(value, seen)


def _contents(value: Any, seen: Seen) -> Any:
    if isinstance(value, Mapping):
        return tuple((print_of(key, seen), print_of(item, seen)) for key, item in value.items())
    if isinstance(value, set | frozenset):
        return tuple(sorted(repr(print_of(item, None if isinstance(item, _FIXED) else dict(seen))) for item in value))
    if isinstance(value, FunctionType):
        cells = [_cell(cell) for cell in value.__closure__ or ()]
        parts = (*(value.__defaults__ or ()), *cells)
        return tuple(print_of(part, seen) for part in parts), _fields({**(value.__kwdefaults__ or {}), **vars(value)}, seen)
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, Collection) and not hasattr(value, "__dict__"):
        return tuple(print_of(item, seen) for item in value)
    fields = {**getattr(value, "__dict__", {}), **_slots(value)}
    return _fields(fields, seen) if fields else repr(value)


def _fields(fields: Mapping[str, Any], seen: Seen) -> Any:
    return tuple((name, print_of(item, seen)) for name, item in fields.items())


def _cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that is not bound yet
        return None


def _slots(value: Any) -> dict[str, Any]:
    names = (name for base in type(value).__mro__ for name in _names(getattr(base, "__slots__", ())))
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Names of what differs, new and lost things included."""
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))


Globals = dict[str, dict[str, Any]]
"""Module -> name -> print."""


def globals_of(files: Collection[str]) -> Globals:
    """The prints of the globals of the modules in `files`, and of the attributes of their classes."""
    found: Globals = {}
    for module in _modules(files):
        known = found[module.__name__] = {}
        for name, value in vars(module).items():
            if isinstance(value, type):
                known.update(_attributes(value) if value.__module__ == module.__name__ else ())
            elif not name.startswith("__"):
                known[f"{module.__name__}.{name}"] = _shallow(value)
    return found


def changed_globals(before: Globals, after: Globals) -> list[str]:
    """Names of what differs in the modules that were loaded before."""
    return [name for module, known in before.items() for name in changed(known, after.get(module, {}))]


def _modules(files: Collection[str]) -> Iterator[ModuleType]:
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) in files:
            yield module


def _attributes(cls: type) -> Iterator[tuple[str, Any]]:
    for name, value in vars(cls).items():
        if not name.startswith("__"):
            inner = value.__func__ if isinstance(value, staticmethod | classmethod) else value
            yield f"{cls.__name__}.{name}", _shallow(inner)


def _shallow(value: Any) -> Any:
    """The print of a value; one that is nested too deeply to be looked into counts as one thing."""
    try:
        return print_of(value)
    except RecursionError:
        return type(value).__name__
