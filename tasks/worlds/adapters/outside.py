"""What Python code reaches outside its process while it runs: network connections and database files. Seen by Python's audit events, so
a driver that opens connections in C (libpq below psycopg) is not seen; whoever adapts one says `disposable` for it.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_here = threading.local()


class Outside(Exception):
    """Something outside the process would have been reached where that is forbidden. The message says what."""


@contextmanager
def watched(forbidden: bool = False) -> Iterator[list[str]]:
    """Collects what this thread reaches while the block runs. forbidden: it is not reached, and the block ends in Outside, whatever the
    code made of that.
    """
    _installed()
    before, seen = getattr(_here, "watch", None), list[str]()
    _here.watch = seen, forbidden
    try:
        yield seen
    except Exception:
        if not (forbidden and seen):
            raise
    finally:
        _here.watch = before
    if forbidden and seen:
        raise Outside(seen[0])


@functools.cache
def _installed() -> None:
    sys.addaudithook(_hook)  # there is no way to take one out again


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    watch = getattr(_here, "watch", None)
    if watch is None or not (what := _reached(event, arguments)):
        return
    seen, forbidden = watch
    seen.append(what)
    if forbidden:
        raise Outside(what)


def _reached(event: str, arguments: tuple[Any, ...]) -> str:
    """What an audit event opens outside the process; "" for nothing."""
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        return f"a connection to {':'.join(map(str, address[:2])) if isinstance(address, tuple) else address}"
    if event == "sqlite3.connect":
        name = str(arguments[0])
        return "" if name in ("", ":memory:") or "mode=memory" in name else f"the database file {name}"
    return ""
