"""A desk whose tickets lie where all objects share them: in a global of this module, or in one file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

TICKETS: dict[str, str] = {}
START = {f"T{n}": "open" for n in range(4)}
POLICY = "R1. Close what is done."
FILE = "DESK_FILE"
"""The environment variable that says where the file lies."""


class Desk:
    """Tickets in a global."""

    def __init__(self) -> None:
        TICKETS.clear()
        TICKETS.update(START)

    def look(self, ticket_id: str) -> str:
        """What state a ticket is in."""
        return TICKETS[ticket_id]

    def close(self, ticket_id: str) -> str:
        """Close a ticket."""
        TICKETS[ticket_id] = "closed"
        return "closed"

    def die(self) -> str:
        """A bug that ends the process."""
        os._exit(7)

    def pid(self) -> int:
        """Which process this is."""
        return os.getpid()


def dump(desk: Any) -> Any:
    return dict(TICKETS)


def bring(desk: Any, value: Any) -> None:
    TICKETS.clear()
    TICKETS.update(value)


class FileDesk:
    """Tickets in a file."""

    def look(self, ticket_id: str) -> str:
        """What state a ticket is in."""
        return str(dump_file(self)[ticket_id])

    def close(self, ticket_id: str) -> str:
        """Close a ticket."""
        bring_file(self, {**dump_file(self), ticket_id: "closed"})
        return "closed"


def make_file() -> FileDesk:
    bring_file(None, START)
    return FileDesk()


def dump_file(desk: Any) -> Any:
    return json.loads(Path(os.environ[FILE]).read_text())


def bring_file(desk: Any, value: Any) -> None:
    Path(os.environ[FILE]).write_text(json.dumps(value))
