"""SQLite files that several processes open: which file a URL names, and why one cannot be used."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

PATIENCE = 6.0
"""Seconds that a locked file is waited for; ours. Whoever writes holds one for a fraction of a second."""


def path_of(url: str) -> Path | None:
    """The file that a URL such as sqlite:////home/me/mlflow.db names; None for another kind of URL, and for a database in memory."""
    scheme, _, rest = url.partition(":///")
    file = rest.partition("?")[0]
    if scheme.partition("+")[0] != "sqlite" or file in ("", ":memory:"):
        return None
    return Path(unquote(file.removeprefix("file:")) if file.startswith("file:") else file)


def opened(path: Path, mode: Literal["ro", "rw"], patience: float = PATIENCE) -> sqlite3.Connection:
    """A database that is there, to be read or written; nothing is begun by itself. patience: seconds that a lock is waited for."""
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=patience, isolation_level=None)


def is_locked(error: sqlite3.Error) -> bool:
    """Whether an error says that another process has the file for itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def unusable(path: Path, patience: float = PATIENCE) -> str:
    """Why nothing can be written to a database, in words; "" when it can, or when it can be made. Nothing is written.

    patience: seconds that a locked one is waited for.
    """
    if not path.exists():
        there = path.parent.is_dir() and os.access(path.parent, os.W_OK)
        return "" if there else f"there is no folder {path.parent} in which this user may write"
    try:
        with closing(opened(path, "rw", patience)) as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
            database.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if is_locked(error):
            return f"another process has locked {path} for more than {patience:.0f} s; try again when that process has ended"
        return f"{path} cannot be written to ({error})"
    except sqlite3.DatabaseError as error:
        return f"{path} is no SQLite database, or a damaged one ({error})"
    return ""
