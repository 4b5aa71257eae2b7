"""md5 of files and folders as DVC takes them, so that "unchanged" means the same to `cairn run` and `dvc repro`.

A file's identity is its md5, a folder's the md5 of its sorted listing, with `.dir`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from tasks.contract.params import BadInput
from tasks.engine.sqlite_files import is_locked

_IGNORED = re.compile(r"(^|/)(__pycache__|\.ruff_cache|\.mypy_cache)(/|$)|\.py[co]$")
"""What `.dvcignore` leaves out; a test compares the two."""


class Hashes:
    """md5 of files, remembered by device, inode, size, modification and change time, so that unchanged files are read once.

    Any difference means "read again", not "altered": linking, unlinking and chmod move a file's change time too. What is remembered
    is a memory alone: a damaged database is thrown away, and files are read anew.
    """

    def __init__(self, state: Path) -> None:
        state.mkdir(parents=True, exist_ok=True)
        self._file = state / "hashes.db"
        self._lock = Lock()
        self._fresh: dict[str, tuple[os.stat_result, str]] = {}
        """What was hashed so soon after it was written that an alteration might not show yet: remembered for `own_moves` alone."""
        try:
            self._db = _healed(self._file)
        except sqlite3.OperationalError as error:
            if not is_locked(error):
                raise
            raise BadInput(
                f"another process has locked {self._file} for more than {WAIT} s; try again when that process has ended."
            ) from None

    def file(self, path: Path, trust: bool = True) -> str:
        """md5 of a file; with `trust` False it is read even if it looks unchanged. OSError when it cannot be read."""
        if trust and (known := self._known(path.stat())):
            return known
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            value = hashlib.file_digest(file, _md5).hexdigest()
            after = os.fstat(file.fileno())
        if _looks(before) == _looks(after):
            if _settled(after):
                self._note([(after, value)])
            else:
                self._fresh[_name(after)] = (after, value)
        return value

    def files(self, paths: Iterable[Path], trust: bool = True) -> dict[Path, str]:
        """md5 of many files; what has to be read is read side by side (hashing leaves the interpreter free for others)."""
        found = {path: known if trust and (known := self._known(path.stat())) else "" for path in paths}
        anew = [path for path, md5 in found.items() if not md5]
        if len(anew) < 2:
            return found | {path: self.file(path, trust) for path in anew}
        with ThreadPoolExecutor(min(READERS, os.cpu_count() or 1)) as pool:
            return found | dict(zip(anew, pool.map(lambda path: self.file(path, trust), anew), strict=True))

    def listing(self, folder: Path, trust: bool = True) -> dict[str, str]:
        """relative path -> md5 of every file of a folder that is not ignored. OSError when a part of it cannot be read."""
        return {path.relative_to(folder).as_posix(): md5 for path, md5 in self.files(sorted(walk(folder)), trust).items()}

    def path(self, path: Path, trust: bool = True) -> str:
        """Identity of a file (md5) or a folder (md5 of its listing, with `.dir`), as DVC would say it."""
        return folder_id(self.listing(path, trust)) if path.is_dir() else self.file(path, trust)

    @contextmanager
    def own_moves(self) -> Iterator[Callable[[Path], AbstractContextManager[None]]]:
        """For links, unlinks and chmods of our own, which move change times and leave bytes alone: `with moving(path): path.unlink()`.

        What was known of a file's bytes before stays known after, so that the next run has nothing to read again.
        """
        moved: dict[str, tuple[os.stat_result, str]] = {}

        @contextmanager
        def moving(path: Path) -> Iterator[None]:
            try:
                handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:  # not there, or not for us: then there is nothing to remember
                handle = -1
            if handle < 0:
                yield
                return
            try:
                before = os.fstat(handle)
                said = [one for one in (moved.get(_name(before)), self._fresh.get(_name(before))) if one]
                md5 = next((md5 for seen, md5 in said if _looks(seen) == _looks(before)), None) or self._known(before)
                yield
                after = os.fstat(handle)
                if md5 and (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
                    moved[_name(after)] = (after, md5)
            finally:
                os.close(handle)

        try:
            yield moving
        finally:
            self._fresh.clear()
            if moved:
                time.sleep(TICK / 1e9)  # from now on whoever alters one of them gives it another time stamp
                self._note(moved.values())

    def _known(self, seen: os.stat_result) -> str | None:
        row = self._ask("SELECT looks, md5 FROM files WHERE name=?", [(_name(seen),)])
        return str(row[1]) if row and row[0] == _looks(seen) else None

    def _note(self, files: Iterable[tuple[os.stat_result, str]]) -> None:
        self._ask("INSERT OR REPLACE INTO files VALUES (?,?,?)", [(_name(seen), _looks(seen), md5) for seen, md5 in files])

    def _ask(self, statement: str, rows: Sequence[tuple[str, ...]]) -> Any:
        """Carry a statement out for each row, the last one's answer; a database that turns out to be damaged is made anew first."""
        with self._lock:
            try:
                return [self._db.execute(statement, row).fetchone() for row in rows][-1]
            except sqlite3.DatabaseError as error:
                gone = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY_DBMOVED  # another process made it anew
                if not gone and not _damaged(error):
                    raise
                self._db.close()
                self._db = _healed(self._file, None if gone else error)
                return [self._db.execute(statement, row).fetchone() for row in rows][-1]

    def check(self) -> bool:
        """Look the whole database over; False when it was damaged: then it was made anew."""
        before = self._db
        said = self._ask("PRAGMA quick_check(1)", [()])[0]
        if said != "ok":
            with self._lock:
                self._db.close()
                self._db = _healed(self._file, sqlite3.DatabaseError(said))
        return self._db is before


TICK = 20_000_000
"""Nanoseconds within which two changes of a file may get the same time stamp (the clock of a file system ticks every 10 ms at most)."""

WAIT = 30
"""Seconds that the database is waited for while another process writes to it; ours."""
READERS = 8
"""Files read at once: more bring nothing on one disk."""


def _name(seen: os.stat_result) -> str:
    return f"{seen.st_dev}:{seen.st_ino}"


def _looks(seen: os.stat_result) -> str:
    return f"{seen.st_size} {seen.st_mtime_ns} {seen.st_ctime_ns}"


def _settled(seen: os.stat_result) -> bool:
    """Whether a change from now on would show: the last one is not of this very tick. A disk whose clock runs ahead is believed."""
    return not 0 <= time.time_ns() - seen.st_ctime_ns < TICK


def _healed(file: Path, error: sqlite3.DatabaseError | None = None) -> sqlite3.Connection:
    """The database, opened; made anew when it is damaged (`error`: what somebody saw who had it open)."""
    try:
        if error is None:
            return _opened(file)
    except sqlite3.DatabaseError as found:
        if not _damaged(found):
            raise
        error = found
    print(f"cairn: {file} is damaged ({error}); it is made anew, and files are read again", file=sys.stderr, flush=True)
    for end in ("", "-wal", "-shm"):
        Path(f"{file}{end}").unlink(missing_ok=True)
    return _opened(file)


def _opened(file: Path) -> sqlite3.Connection:
    database = sqlite3.connect(file, timeout=WAIT, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=OFF")
        database.execute("DROP TABLE IF EXISTS md5")  # of earlier versions, without change times
        database.execute("CREATE TABLE IF NOT EXISTS files (name TEXT PRIMARY KEY, looks TEXT, md5 TEXT)")
    except BaseException:
        database.close()
        raise
    return database


def _damaged(error: sqlite3.DatabaseError) -> bool:
    """Whether a database is broken or another's, in contrast to busy, full or out of file descriptors."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH)


def walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder that is not ignored. OSError when a part of it cannot be read: a listing is whole or none."""
    with os.scandir(folder) as found:
        entries = list(found)
    for entry in entries:
        if _IGNORED.search(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from walk(Path(entry.path))
        elif entry.is_file():
            yield Path(entry.path)


def _md5() -> Any:
    return hashlib.md5(usedforsecurity=False)


def file_md5(path: Path) -> str:
    """md5 of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, _md5).hexdigest()


def listing_bytes(files: Mapping[str, str]) -> bytes:
    """The `.dir` object DVC writes for a folder: JSON of its entries sorted by path."""
    return json.dumps([{"md5": files[path], "relpath": path} for path in sorted(files)], sort_keys=True).encode()


def folder_id(files: Mapping[str, str]) -> str:
    """The identity DVC gives a folder with these files."""
    return hashlib.md5(listing_bytes(files), usedforsecurity=False).hexdigest() + ".dir"
