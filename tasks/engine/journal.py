"""What a run has to tell its tracker, on disk as it happens: whoever comes after a kill or a lost server tells the rest.

A journal is a file of JSON lines that its process holds locked (flock): when the lock is free, the process is gone. The first line
says whose run it is; each other line is an event. It is removed when everything in it has been told.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

FOLDER = "journals"
Event = tuple[str, str, dict[str, Any]]
"""(stage, event, about)"""


class Journal:
    """The journal of one process."""

    def __init__(self, state: Path, run: str, facts: Mapping[str, Any]) -> None:
        folder = state / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{run[:16]}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"
        self._file: TextIO = self.path.open("x")
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.add("", "facts", facts)

    def add(self, stage: str, event: str, details: Mapping[str, Any]) -> None:
        """Write an event down."""
        self._file.write(json.dumps([stage, event, dict(details)]) + "\n")
        self._file.flush()

    def close(self, delivered: bool) -> None:
        """delivered: everything in it reached whom it is for, so that nobody has to tell it again."""
        if delivered:
            self.path.unlink(missing_ok=True)
        self._file.close()


@dataclass
class Left:
    """A journal whose process is gone, locked by this one."""

    path: Path
    facts: dict[str, Any]
    events: list[Event]

    def keep(self, facts: Mapping[str, Any], events: list[Event]) -> None:
        """Leave what is still to be told to the next one; removes it when that is nothing."""
        if not facts:
            self.path.unlink()
            return
        text = "".join(json.dumps(one) + "\n" for one in [("", "facts", dict(facts)), *events])
        self.path.write_text(text)  # in place: the lock is on this very file


def left(state: Path) -> Iterator[Left]:
    """The journals that nobody writes any more, each locked while it is looked at."""
    for path in sorted((state / FOLDER).glob("*.jsonl")):
        try:
            with path.open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found = list(_events(file))
                if path.exists() and found and found[0][1] == "facts":
                    yield Left(path, found[0][2], found[1:])
                elif path.exists():
                    path.unlink()  # killed before its first line
        except (BlockingIOError, FileNotFoundError):
            continue


def alive(state: Path, run: str) -> int:
    """How many processes write a journal of this run (its key) now."""
    count = 0
    for path in (state / FOLDER).glob(f"{run[:16]}-*.jsonl"):
        try:
            with path.open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            count += 1
        except FileNotFoundError:
            continue
    return count


def _events(file: TextIO) -> Iterator[Event]:
    for line in file:
        try:
            stage, event, about = json.loads(line)
        except ValueError:  # the line that the kill cut
            return
        yield stage, event, about
