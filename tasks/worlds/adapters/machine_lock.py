"""A lock that all processes of this machine share, of whatever project, for something outside of them all: a service, a server."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

FOLDER = Path("/tmp")
"""One place for all; each project may have a folder of its own for temporary files."""


@contextlib.contextmanager
def locked(name: str) -> Iterator[IO[str]]:
    """The lock of what is so called while the block runs: a file of this user's, in which a note can be left for the next."""
    mark = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
    with (FOLDER / f"cairn-{os.getuid()}-{mark}.lock").open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
