"""Who reads the clock or draws chance while a tool runs, and in which line: found by watching calls, however a module was imported.

Python's profile hook sees every call of a built-in function with the frame that makes it. A generator that a tool seeds itself
(`random.Random(7)`) is no chance; the shared one of the `random` module is. Log records carry a time and are left out.
"""

from __future__ import annotations

import datetime
import logging
import os
import random
import sys
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from tasks import worlds

_CLOCK: dict[Any, str] = {
    getattr(time, name): f"time.{name}"
    for name in (
        *("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time", "process_time_ns"),
        *("localtime", "gmtime", "ctime", "asctime", "strftime", "thread_time", "thread_time_ns", "clock_gettime", "clock_gettime_ns"),
    )
    if hasattr(time, name)
}
_CHANCE: dict[Any, str] = {os.urandom: "os.urandom", **({os.getrandom: "os.getrandom"} if hasattr(os, "getrandom") else {})}
_NOW = ("now", "utcnow", "today")
_SHARED = getattr(random.random, "__self__", None)
"""The generator behind the functions of the `random` module."""
_UUIDS: dict[CodeType, tuple[str, str]] = {
    uuid.uuid1.__code__: ("clock", "uuid.uuid1"),
    uuid.uuid4.__code__: ("random", "uuid.uuid4"),
}
_SEED = random.Random.__init__.__code__
_HERE, _PYTHON = str(Path(__file__).parent), str(Path(os.__file__).parent)
_RUNTIME = str(Path(worlds.__file__ or "").parent)


@dataclass(frozen=True)
class Sight:
    """One call of a clock or of chance. what: clock or random. name: the function. file, line: of the world's own code, "" and 0
    when none of it is on the stack."""

    what: str
    name: str
    file: str
    line: int


def apart(cls: Any) -> bool:
    """Whether the tools of a world's class run outside of this process, so that what reads clocks here is only what calls them."""
    return getattr(cls, "FOREIGN", None) is not None and bool(getattr(cls, "WAITS", False))


@contextmanager
def watching(files: Collection[str], active: bool = True) -> Iterator[list[Sight]]:
    """Collects sights while the block runs. files: names of the files that are the world's own code. active: False collects none."""
    seen: list[Sight] = []
    if not active:
        yield seen
        return

    def hook(frame: FrameType, event: str, argument: Any) -> None:
        found = _called(argument) if event == "c_call" else _entered(frame) if event == "call" else None
        if found is not None and (place := _place(frame, files)) is not None:
            sight = Sight(*found, *place)
            if sight not in seen:
                seen.append(sight)

    before = sys.getprofile()
    sys.setprofile(hook)
    try:
        yield seen
    finally:
        sys.setprofile(before)


def _called(function: Any) -> tuple[str, str] | None:
    """What a built-in function that is about to run reads: (clock or random, its name)."""
    owner = getattr(function, "__self__", None)
    if owner is _SHARED and owner is not None:
        return "random", f"random.{function.__name__}"
    if isinstance(owner, type):
        dated = issubclass(owner, datetime.date) and function.__name__ in _NOW
        return ("clock", f"{owner.__name__}.{function.__name__}") if dated else None
    try:
        return next(
            ((what, names[function]) for what, names in (("clock", _CLOCK), ("random", _CHANCE)) if function in names),
            None,
        )
    except TypeError:  # a method of something that has no hash
        return None


def _entered(frame: FrameType) -> tuple[str, str] | None:
    """The same for a function written in Python that has just been entered."""
    if frame.f_code is _SEED and frame.f_locals.get("x") is None and not isinstance(frame.f_locals.get("self"), random.SystemRandom):
        return "random", "random.Random() without a seed"
    return _UUIDS.get(frame.f_code)


def _place(frame: FrameType, files: Collection[str]) -> tuple[str, int] | None:
    """File and line of the world's innermost frame, else of the innermost one of a library (an API that is adapted may lie anywhere);
    ("", 0) without one; None for a log record, and for what an adapter does itself, such as waiting for a program to end in time."""
    at: FrameType | None = frame
    other, inside = ("", 0), True
    while at is not None and not at.f_code.co_filename.startswith(_HERE):
        name = at.f_code.co_filename
        if name in files:
            return name, at.f_lineno
        if name == logging.__file__ or (inside and name.startswith(_RUNTIME)):
            return None
        inside = inside and _of_python(name)
        if not other[0] and _of_a_library(name):
            other = name, at.f_lineno
        at = at.f_back
    return other


def _of_a_library(name: str) -> bool:
    """Whether a file is neither Python's own nor the runtime's, nor made while running ("<string>")."""
    return not name.startswith((_RUNTIME, "<")) and not _of_python(name)


def _of_python(name: str) -> bool:
    return name.startswith((_PYTHON, "<frozen ")) and "site-packages" not in name
