"""What Python code reaches outside its process while it runs: network connections, database files, and other files that were there and
are written, moved or deleted. Seen by Python's audit events, so a driver that opens connections in C (libpq below psycopg) is not seen;
whoever adapts one says `disposable` for it. A file that was opened before, such as a log, is not seen either.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

Files = Literal["free", "seen", "kept"]
_here = threading.local()


class Outside(Exception):
    """Something outside the process would have been reached where that is forbidden. The message says what."""


@dataclass
class _Watch:
    """What a block reaches. made: files that are new since it began, which are nobody's loss."""

    forbidden: bool
    files: Files
    seen: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    made: set[str] = field(default_factory=set)


@contextmanager
def watched(forbidden: bool = False, files: Files = "seen") -> Iterator[list[str]]:
    """Collects what this thread reaches while the block runs. forbidden: it is not reached, and the block ends in Outside, whatever the
    code made of that. files: whether those that are changed are collected too; "kept": they are not changed, as if forbidden.
    """
    _installed()
    before, watch = getattr(_here, "watch", None), _Watch(forbidden, files)
    _here.watch = watch
    try:
        yield watch.seen
    except Exception:
        if not watch.stopped:
            raise
    finally:
        _here.watch = before
    if watch.stopped:
        raise Outside(watch.stopped[0])


@contextmanager
def unwatched() -> Iterator[None]:
    """What Cairn does itself in such a block, for this thread."""
    before = getattr(_here, "watch", None)
    _here.watch = None
    try:
        yield
    finally:
        _here.watch = before


@functools.cache
def _installed() -> None:
    sys.addaudithook(_hook)  # there is no way to take one out again


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    watch: _Watch | None = getattr(_here, "watch", None)
    if watch is None:
        return
    what, changed = _reached(event, arguments), ""
    if not what and watch.files != "free":
        what = changed = next(filter(None, (_changed(name, watch.made) for name in _files(event, arguments))), "")
    if not what:
        return
    watch.seen.append(what)
    if watch.forbidden or (changed and watch.files == "kept"):
        watch.stopped.append(what)
        raise Outside(what)


def _reached(event: str, arguments: tuple[Any, ...]) -> str:
    """The connection or database that an audit event opens; "" for none."""
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        return f"a connection to {':'.join(map(str, address[:2])) if isinstance(address, tuple) else address}"
    if event == "sqlite3.connect":
        name = str(arguments[0])
        return "" if name in ("", ":memory:") or "mode=memory" in name else f"the database file {name}"
    return ""


def _files(event: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The files that an audit event writes, moves or deletes."""
    if event == "open":
        return arguments[:1] if _writes(*arguments[1:3]) else ()
    return arguments[: {"os.remove": 1, "os.truncate": 1, "os.rename": 2}.get(event, 0)]


def _writes(mode: Any, flags: Any) -> bool:
    """Whether a file is opened to be changed: by `open`, which says a mode, or by `os.open`, which says flags."""
    if isinstance(mode, str):
        return bool(set(mode) & set("wax+"))
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))


def _changed(name: Any, made: set[str]) -> str:
    """Such a file in words; "" for a new one, which `made` then holds, for what is no file (a terminal, a pipe), and for what Python
    compiles."""
    if isinstance(name, int):  # of a file that is open: that was seen
        return ""
    path = os.path.abspath(os.fsdecode(name))
    if not os.path.lexists(path):
        made.add(path)
    if path in made or not os.path.isfile(path) or "__pycache__" in path:
        return ""
    return f"the file {path}"
