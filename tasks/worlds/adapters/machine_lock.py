"""A lock that all processes of this machine share, of whatever project, for something outside of them all: a service, a server, what
objects share. It dies with its process."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from tasks.worlds.adapters.outside import unwatched

FOLDER = Path("/tmp") if os.path.isdir("/tmp") else Path(tempfile.gettempdir())
"""One place for all; each project may have a folder of its own for temporary files."""
TELL = 5.0
"""Seconds after which waiting is told; ours."""


class StillHeld(TimeoutError):
    """Somebody else has the lock, and did not give it back in time. note: what they have written into it."""

    def __init__(self, note: str) -> None:
        super().__init__(note)
        self.note = note


@contextlib.contextmanager
def locked(name: str) -> Iterator[IO[str]]:
    """The lock of what is so called while the block runs: a file of this user's, in which a note can be left for the next."""
    with _opened(name) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def held(name: str, seconds: float, waiting: Callable[[str], None]) -> IO[str]:
    """The same file, which is the lock until it is closed. waiting: told once, after TELL seconds, what its holder has written. Raises
    StillHeld after so many seconds."""
    file = _opened(name)
    began, told = time.monotonic(), False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            waited = time.monotonic() - began
            file.seek(0)
            note = file.read()
            if waited >= seconds:
                file.close()
                raise StillHeld(note) from None
            if waited > TELL and not told:
                told = True
                waiting(note)
            time.sleep(0.02)


def _opened(name: str) -> IO[str]:
    mark = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
    with unwatched():
        return (FOLDER / f"cairn-{os.getuid()}-{mark}.lock").open("a+", encoding="utf-8")
