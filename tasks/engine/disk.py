"""What a failure has to do with the disk, in words: every library says it in its own way, and some say "HTTP 500"."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOM = 100_000_000
"""bytes that must be free before a run starts: the databases of Prefect and MLflow, and the artifacts of a small road"""
NOTHING = 20_000_000
"""Bytes free below which a disk that failed somebody was full: what failed has been cleared away since, so it need not be zero."""

FULL = (errno.ENOSPC, errno.EDQUOT)
NO_HANDLES = (errno.EMFILE, errno.ENFILE)
"""of this process, of the machine"""
PASSING = (
    *NO_HANDLES,
    errno.EIO,
    errno.ESTALE,
    errno.ENOMEM,
    errno.EAGAIN,
    errno.ENXIO,
    errno.ENODEV,
    errno.ETIMEDOUT,
    errno.EREMOTEIO,
)
_FULL_WORDS = ("no space left", "disk is full", "disk quota exceeded", "database or disk is full", "enospc", "could not extend file")
"""How libc, SQLite, Python, Node and Postgres put it, in lower case."""
_AFTER = "Nothing half-written was kept; make room, and run again: what was finished is not computed again."


def in_words(error: BaseException, places: Iterable[Path] = ()) -> str | None:
    """A failure that comes from a disk (or from a limit on open files) in our words; None when it has nothing to do with one.

    places: folders on the disks that matter, looked at when the failure itself does not say.
    """
    for one in _chain(error):
        if isinstance(one, OSError) and (said := _of_system(one)):
            return said
        if says_full(str(one)):
            return _full(places)
    low = _lowest(places)
    if low and low[1] < NOTHING:
        return f"{_full([low[0]])} (It showed as {_short(error)}.)"
    if low and low[1] < ROOM:
        return (
            f"{_short(error)}. Only {low[1] / 1e6:.0f} MB are free on the disk of {low[0]}: that may be why. Make room, and run again."
        )
    return None


def written_to(state: Path, project: Path) -> list[Path]:
    """Folders on the disks that a command writes to: ours, and those that Prefect and temporary files were sent to."""
    return [state, project, *(Path(os.environ[name]) for name in ("PREFECT_HOME", "TMPDIR") if os.environ.get(name))]


def says_full(text: str) -> bool:
    """Whether a message of somebody else's speaks of a full disk."""
    return any(words in text.lower() for words in _FULL_WORDS)


def _full(places: Iterable[Path]) -> str:
    low = _lowest(places)
    where = f" of {low[0]} ({low[1] / 1e6:.0f} MB free)" if low else ""
    return f"No space left on the disk{where}. {_AFTER}"


def _of_system(error: OSError) -> str | None:
    number, name = error.errno, error.filename
    if number in FULL:
        return f"{error.strerror}: {name or 'no file named'}. {_AFTER}"
    if number in NO_HANDLES:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return (
            f"Too many open files (this process may have {limit}): {name or 'no file named'}. Nothing was deleted, nothing is lost; "
            "raise the limit, such as with `ulimit -n 8192`, and run again."
        )
    if name is None or isinstance(error, ConnectionError):
        return None
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{error.strerror}: {name}. Nothing half-written was kept; give this user the right to it, and run again."
    if number in PASSING:
        return f"{error.strerror}: {name}. It could not be read or written now; nothing was deleted. See to the disk, and run again."
    return None


def _lowest(places: Iterable[Path]) -> tuple[Path, int] | None:
    """The place with the least room, and its bytes."""
    found = []
    for place in places:
        there = next((folder for folder in (place, *place.parents) if folder.exists()), None)
        if there:
            found.append((place, shutil.disk_usage(there).free))
    return min(found, key=lambda one: one[1], default=None)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, those inside a group, and those it came from."""
    seen: set[int] = set()
    todo = [error]
    while todo:
        one = todo.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        todo += one.exceptions if isinstance(one, BaseExceptionGroup) else ()
        todo += [other for other in (one.__cause__, one.__context__) if other is not None]


def _short(error: BaseException) -> str:
    lines, kind = str(error).strip().splitlines(), type(error)
    if lines and kind.__module__.startswith("tasks."):  # words of ours
        return lines[0][:400]
    return f"{kind.__name__}: {lines[0][:200]}" if lines else kind.__name__
