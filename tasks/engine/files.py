"""Small things with files that must not go wrong half-way: a file that appears whole or not at all, a link in the place of a file, what
killed processes left, JSON that may be damaged."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

NEW = ".new-"
"""How the names of half-written files begin."""

Moving = Callable[[Path], contextlib.AbstractContextManager[None]]
"""`with moving(path)`: the block moves links of a file, not its bytes (see `tasks.engine.hashes.Hashes.own_moves`)."""

NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""What a file system says that has no link for us: between two disks, to a file of another user's, one too many."""


def new_name(target: Path) -> Path:
    """A free name beside `target` for what is to take its place."""
    return target.with_name(f"{NEW}{os.urandom(8).hex()}")


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A temporary path beside `target` that takes its place when the block ends well. It is locked while its writer lives; its mode
    is that of any new file, so that others may read it as far as the umask lets them."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = new_name(target)
    handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: `sweep` goes by age there
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def write_text(target: Path, text: str) -> None:
    """Write a small file so that a reader sees the old bytes or the new ones, never half."""
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> dict[str, Any] | None:
    """The mapping in a small file of ours; None when it is not there, or damaged. OSError when it cannot be read now."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def place(source: Path, target: Path, moving: Moving) -> bool:
    """Make `target` the file `source`, at once: a link where there are links (True), else a copy (False)."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source = source.resolve()  # a link to a symbolic link would be one to a name, not to bytes
    temporary = new_name(target)
    with moving(source), moving(target):
        try:
            os.link(source, temporary)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
        else:
            try:
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)  # it stays when both names are one file already
            return True
        with replacing(target) as copy:
            shutil.copyfile(source, copy)
        return False


def prune(folder: Path) -> None:
    """Delete the empty folders below a folder."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def sweep(folder: Path) -> list[Path]:
    """Delete the half-written files that killed processes left in a folder (not below it); returns them.

    A writer that lives holds a lock on its file. Where there are no locks, and for links, which take a moment, age tells.
    """
    gone = []
    for path in sorted(folder.glob(f"{NEW}*")):
        try:
            patience = _patience(path)
            if patience is not None and time.time() - path.stat().st_ctime >= patience:
                path.unlink(missing_ok=True)
                gone.append(path)
        except FileNotFoundError:  # its writer was quicker
            continue
    return gone


def _patience(path: Path) -> float | None:
    """How old (seconds) a half-written file must be to be nobody's; None when somebody writes it now."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:  # another user's
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return 60.0 if os.fstat(handle).st_nlink > 1 else 0.0
    except BlockingIOError:
        return None
    except OSError:
        return 86_400.0
    finally:
        os.close(handle)
