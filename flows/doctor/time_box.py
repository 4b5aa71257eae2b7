"""A check that hangs (a server, a network drive, a locked database) holds nobody up."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from flows.doctor.finding import Finding, Place, error, warning
from tasks.contract.params import BadInput, StageFailed
from tasks.engine import disk

LIMIT = 10.0
"""Seconds that a check may take; ours."""
Find = Callable[[Place], Iterable[Finding]]


def within(part: str, find: Find, place: Place, limit: float = LIMIT) -> Iterator[Finding]:
    """What a check finds, as it finds it. After `limit` seconds a warning ends it; its thread is left behind."""
    found: queue.Queue[Finding | None] = queue.Queue()

    def look() -> None:
        for one in in_words(part, find, place):
            found.put(one)
        found.put(None)

    threading.Thread(target=look, name=f"doctor: {part}", daemon=True).start()
    end = time.monotonic() + limit
    while True:
        try:
            one = found.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            yield warning(part, f"no answer within {limit:.0f} s; what it would have said is not known", "cairn doctor")
            return
        if one is None:
            return
        yield one


def in_words(part: str, find: Find, place: Place) -> Iterator[Finding]:
    """What a check finds; what it raises becomes a finding, so that the other checks go on."""
    try:
        yield from find(place)
    except (BadInput, StageFailed) as wrong:
        yield error(part, str(wrong), "do what this message says, then `cairn doctor`")
    except OSError as wrong:
        yield error(part, disk.in_words(wrong) or f"cannot be read now: {wrong}", "see to the disk, then `cairn doctor`")
    except Exception as wrong:  # a check that is wrong itself must not hide what the others found
        lines = str(wrong).splitlines() or [""]
        yield error(
            part, f"this check failed: {type(wrong).__name__}: {lines[0][:300]}", "look at that by hand; the other checks went on"
        )
