"""Artifacts: immutable files and folders named by the identity DVC gives them, and the store they lie in.

The store *is* DVC's cache (`.dvc/config` points there): `files/md5/ab/cdef...` holds each file's bytes once, and a `.dir` object
lists a folder. Views and the workspace's `data/` are hard links into it (copies where the file system has no links).
An entry of `keys/` binds a key to an identity. A hit counts only when the bytes are there (law 3).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.fingerprint import Hashes, Key, folder_id, listing_bytes
from tasks.params import BadInput


@dataclass(frozen=True)
class Artifact:
    """A handle: which stage made it, under which key, and the identity of its bytes. Small enough to persist anywhere."""

    stage: str
    key: str
    identity: str


class Store:
    """Bytes by identity, identities by key. Safe under concurrent processes: objects appear by atomic rename."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.hashes = Hashes(state)
        self._objects = state / "store" / "files" / "md5"

    # objects ---------------------------------------------------------------------------------------------------------

    def _object(self, md5: str) -> Path:
        return self._objects / md5[:2] / md5[2:]

    def put(self, folder: Path) -> str:
        """Take a folder's files into the store; returns the folder's identity. The folder itself is left as it is."""
        files = self.hashes.listing(folder)
        if not files:
            raise ValueError(f"{folder} is empty: a stage that leaves nothing has no artifact")
        for path, md5 in files.items():
            self._keep(folder / path, md5)
        identity = folder_id(files)
        target = self._object(identity)
        if not target.exists():
            with _replacing(target) as temporary:
                temporary.write_bytes(listing_bytes(files))
        return identity

    def _keep(self, path: Path, md5: str) -> None:
        target = self._object(md5)
        if target.exists() and self.hashes.file(target) == md5:
            return
        with _replacing(target) as temporary:
            _link(path, temporary)
        target.chmod(0o444)

    def files(self, identity: str) -> dict[str, str] | None:
        """relative path -> md5 of an artifact's files; None when its listing is not there or is damaged."""
        try:
            data = self._object(identity).read_bytes()
            files = {entry["relpath"]: entry["md5"] for entry in json.loads(data)}
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return files if folder_id(files) == identity else None

    def has(self, identity: str, verify: bool = False) -> bool:
        """Whether every byte of an artifact is there. Files are checked by inode, size and time; with `verify` they are hashed.

        A damaged object is removed, so that it can be fetched or made again; it is never used.
        """
        files = self.files(identity)
        if files is None:
            self._object(identity).unlink(missing_ok=True)
            return False
        return all([self._sound(md5, verify) for md5 in set(files.values())])

    def _sound(self, md5: str, verify: bool) -> bool:
        path = self._object(md5)
        try:
            if self.hashes.file(path, trust=not verify) == md5:
                return True
        except FileNotFoundError:
            return False
        path.unlink(missing_ok=True)
        return False

    # places to read from ---------------------------------------------------------------------------------------------

    def view(self, identity: str) -> Path:
        """A folder with the artifact's files, for reading. LookupError when bytes are missing."""
        folder = self.state / "views" / identity
        with lock(self.state, f"view-{identity[:32]}"):  # several threads and processes may want it first
            self.lay_out(identity, folder)
        return folder

    def lay_out(self, identity: str, folder: Path) -> bool:
        """Make `folder` hold exactly the artifact's files; returns whether anything had to be done."""
        files = self.files(identity)
        if files is None or not self.has(identity):
            raise LookupError(f"artifact {identity} is not in the store")
        present = self.hashes.listing(folder) if folder.is_dir() else {}
        if present == files:
            return False
        for path in present.keys() - files.keys():
            (folder / path).unlink()
        for path, md5 in files.items():
            if present.get(path) != md5:
                with _replacing(folder / path) as temporary:
                    _link(self._object(md5), temporary)
        _prune(folder)
        return True

    def lay_out_file(self, md5: str, target: Path) -> bool:
        """Make `target` one stored file; returns whether anything had to be done."""
        if target.is_file() and self.hashes.file(target) == md5:
            return False
        with _replacing(target) as temporary:
            _link(self._object(md5), temporary)
        return True

    # keys ------------------------------------------------------------------------------------------------------------

    def _entry(self, digest: str) -> Path:
        return self.state / "keys" / f"{digest}.json"

    def record(self, key: Key, identity: str, about: Mapping[str, Any]) -> Artifact:
        """Bind a key to an identity. `about` holds figures and seconds, for people; it is not part of the artifact."""
        with _replacing(self._entry(key.digest)) as temporary:
            temporary.write_text(json.dumps({"identity": identity, "parts": key.parts, **about}, indent=1))
        return Artifact(key.parts["stage"], key.digest, identity)

    def entry(self, digest: str) -> dict[str, Any] | None:
        """What was recorded under a key, whether or not the bytes are still there."""
        try:
            found: dict[str, Any] = json.loads(self._entry(digest).read_text())
        except (OSError, ValueError):
            return None
        return found

    def find(self, key: Key, verify: bool = False) -> Artifact | None:
        """The artifact under a key, when it was recorded and every byte is there."""
        entry = self.entry(key.digest)
        if entry is None or not self.has(entry["identity"], verify):
            return None
        return Artifact(key.parts["stage"], key.digest, entry["identity"])

    # work in progress ------------------------------------------------------------------------------------------------

    def workbench(self, digest: str) -> tuple[Path, Path]:
        """(out, scratch) of a key: out is empty, scratch is as an earlier, killed attempt left it."""
        bench = self.state / "work" / digest[:32]
        shutil.rmtree(bench / "out", ignore_errors=True)
        for folder in (bench / "out", bench / "scratch"):
            folder.mkdir(parents=True, exist_ok=True)
        return bench / "out", bench / "scratch"

    def clear_workbench(self, digest: str) -> None:
        """Forget the work in progress of a key."""
        shutil.rmtree(self.state / "work" / digest[:32], ignore_errors=True)


def _prune(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A temporary path beside `target` that takes its place when the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".new-")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write a small file so that a reader sees the old bytes or the new ones, never half."""
    with _replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(0o644)


@contextlib.contextmanager
def lock(state: Path, name: str, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """A lock that dies with its process (flock). `waiting` is told once who holds it when it is not free."""
    path = state / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            (waiting or _say)(f"waiting for {name}, held by process {file.read().strip() or 'unknown'}")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _say(text: str) -> None:
    print(f"cairn: {text}", file=sys.stderr, flush=True)


ROOM = 100_000_000
"""bytes that must be free before a run starts: the databases of Prefect and MLflow, and the artifacts of a small road"""


def check_writable(state: Path) -> None:
    """BadInput when the state root cannot be written or has hardly any room left: better now than after an hour."""
    try:
        state.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=state):
            pass
    except OSError as error:
        raise BadInput(
            f"{state} cannot be written ({error.strerror}). Make it writable, or set CAIRN_HOME to a folder that is."
        ) from None
    if (free := shutil.disk_usage(state).free) < ROOM:
        raise BadInput(
            f"{state}: {free / 1e6:.0f} MB are free, {ROOM / 1e6:.0f} MB are needed to begin. Make room, or set CAIRN_HOME elsewhere."
        )
