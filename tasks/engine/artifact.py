"""Artifacts: immutable files and folders named by the identity DVC gives them, and the store they lie in.

The store *is* DVC's cache (`.dvc/config` points there): `files/md5/ab/cdef...` holds each file's bytes once, and a `.dir` object
lists a folder. Views and the workspace's `data/` are hard links into it (copies where the file system has no links).
An entry of `keys/` binds a key to an identity. A hit counts only when the bytes are there (law 3).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.contract.params import BadInput, StageFailed
from tasks.engine.disk import PASSING, ROOM
from tasks.engine.files import NEW, Moving, new_name, place, prune, read_json, replacing, sweep, write_text
from tasks.engine.hashes import READERS, Hashes, file_md5, folder_id, listing_bytes, walk
from tasks.engine.key import Key
from tasks.engine.locks import lock

_NAME = re.compile(r"[0-9a-f]{32}(\.dir)?")
"""An object's name. Nothing else is made a path of, wherever it was read: a dvc.lock or a listing may come from anybody."""


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
        with self.hashes.own_moves() as moving:
            for path, md5 in files.items():
                self._keep(folder / path, md5, moving)
        return self._listed(files)

    def _keep(self, path: Path, md5: str, moving: Moving) -> None:
        target = self._object(md5)
        with contextlib.suppress(FileNotFoundError):
            if self.hashes.file(target) == md5:
                return
        if not place(path, target, moving) and file_md5(target) != md5:  # a copy: the file may have changed since it was hashed
            target.unlink(missing_ok=True)
            raise StageFailed(f"{path} changed while it was taken into the store; nothing was recorded. Run again.")
        with moving(target):
            target.chmod(0o444)

    def files(self, identity: str) -> dict[str, str] | None:
        """relative path -> md5 of an artifact's files; None when its listing is not there or is damaged.

        OSError when it is there and cannot be read now: that says nothing of its bytes.
        """
        data = self._listing(identity)
        if data is None:
            return None
        try:
            files = {str(entry["relpath"]): str(entry["md5"]) for entry in json.loads(data)}
        except (ValueError, KeyError, TypeError):
            raise StageFailed(
                f"{self._object(identity)} is no listing of files, though its hash is right: delete it, and run again"
            ) from None
        if any(Path(path).is_absolute() or ".." in Path(path).parts or not _NAME.fullmatch(md5) for path, md5 in files.items()):
            raise StageFailed(f"{self._object(identity)} lists files outside its folder: it is not used. Delete it, and run again")
        return files

    def without(self, identity: str, folder: str) -> str:
        """The identity of an artifact without one of its folders, which becomes an artifact of the store as well; its own where it has
        no such folder, and where its listing is not there."""
        files = self.files(identity) or {}
        rest = {path: md5 for path, md5 in files.items() if not path.startswith(f"{folder}/")}
        return self._listed(rest) if rest and rest != files else identity

    def part(self, identity: str, name: str) -> str | None:
        """The identity of a file or folder inside an artifact, or None. A folder becomes an artifact of the store as well."""
        files = self.files(identity) or {}
        inside = {path.removeprefix(f"{name}/"): md5 for path, md5 in files.items() if path.startswith(f"{name}/")}
        return self._listed(inside) if inside else files.get(name)

    def _listed(self, files: Mapping[str, str]) -> str:
        """Keep a listing of files that the store has; returns its identity."""
        identity = folder_id(files)
        if self._listing(identity) is None:
            with replacing(self._object(identity)) as temporary:
                temporary.write_bytes(listing_bytes(files))
        return identity

    def _listing(self, identity: str) -> bytes | None:
        """A listing's bytes if they are there and right."""
        if not _NAME.fullmatch(identity):
            return None
        try:
            data = self._object(identity).read_bytes()
        except FileNotFoundError:
            return None
        return data if _identity(data) == identity else None

    def has(self, identity: str, verify: bool = False) -> bool:
        """Whether every byte of an artifact is there. Files whose stamps moved are read again; with `verify` all are.

        A damaged object, one that was read whole and has another hash, is removed, so that it can be fetched or made again; it is
        never used. OSError when an object cannot be read now; then nothing is removed.
        """
        files = self.files(identity)
        if files is None:
            self._drop(identity)
            return False
        wanted = {self._object(md5): md5 for md5 in files.values()}
        there = [path for path in wanted if path.exists()]
        try:
            damaged = [wanted[path] for path, found in self.hashes.files(there, trust=not verify).items() if found != wanted[path]]
        except FileNotFoundError:  # another process has just removed it
            return False
        lost = [md5 for md5 in damaged if self._drop(md5)]
        return len(there) == len(wanted) and not lost

    def loses(self, identity: str) -> bool:
        """Whether a file of an artifact is found damaged now (and removed), in contrast to one that was not there before."""
        before = len(self._objects_of(identity))
        return not self.has(identity) and len(self._objects_of(identity)) < before

    def _drop(self, name: str) -> bool:
        """Remove an object that was found damaged, unless a second reading finds it sound (another process may have put it right, or
        the disk misread once); returns whether it is gone."""
        if not _NAME.fullmatch(name):
            return True
        path = self._object(name)
        aside = new_name(path)
        try:
            path.rename(aside)
        except FileNotFoundError:
            return True
        sound = True  # unless it is read whole and says otherwise
        try:
            sound = _identity(aside.read_bytes()) == name if name.endswith(".dir") else file_md5(aside) == name
        finally:
            if sound:
                aside.rename(path)
            else:
                aside.unlink()
        return not sound

    # places to read from ---------------------------------------------------------------------------------------------

    def view(self, identity: str) -> Path:
        """A folder with the artifact's files, for reading. LookupError when bytes are missing."""
        folder = self.state / "views" / identity
        with lock(self.state, f"view-{identity[:32]}"):  # several threads and processes may want it first
            self.lay_out(identity, folder)
        return folder

    def read(self, identity: str) -> Path:
        """As `view`, with every byte read and hashed now: what a result is made of is what its key says. LookupError when bytes are
        missing or damaged."""
        folder = self.view(identity)
        if not self.intact(identity, trust=False):
            raise LookupError(f"artifact {identity} was damaged")
        return folder

    def intact(self, identity: str, trust: bool = True) -> bool:
        """Whether a view holds what it should (read again where stamps moved; with `trust` False all of it). What is damaged, there
        and in the store, is removed."""
        folder, files = self.state / "views" / identity, self.files(identity)
        found = self.hashes.listing(folder, trust) if folder.is_dir() else {}
        if found == files:
            return True
        for path, md5 in found.items():
            if files is None or files.get(path) != md5:
                (folder / path).unlink(missing_ok=True)
        self.has(identity, verify=True)
        return False

    def lay_out(self, identity: str, folder: Path) -> bool:
        """Make `folder` hold exactly the artifact's files; returns whether anything had to be done."""
        files = self.files(identity)
        if files is None or not self.has(identity):
            raise LookupError(f"artifact {identity} is not in the store")
        present = self.hashes.listing(folder) if folder.is_dir() else {}
        if present == files:
            return False
        with self.hashes.own_moves() as moving:
            for path in present.keys() - files.keys():
                with moving(folder / path):
                    (folder / path).unlink()
            for path, md5 in files.items():
                if present.get(path) != md5:
                    place(self._object(md5), folder / path, moving)
        prune(folder)
        return True

    def lay_out_part(self, identity: str, target: Path) -> bool:
        """Make `target` one stored file, or a folder of them; returns whether anything had to be done."""
        if identity.endswith(".dir"):
            return self.lay_out(identity, target)
        if target.is_file() and self.hashes.file(target) == identity:
            return False
        with self.hashes.own_moves() as moving:
            place(self._object(identity), target, moving)
        return True

    # keys ------------------------------------------------------------------------------------------------------------

    def _entry(self, digest: str) -> Path:
        return self.state / "keys" / f"{digest}.json"

    def record(self, key: Key, identity: str, details: Mapping[str, Any]) -> Artifact:
        """Bind a key to an identity. `details` holds figures and seconds, for people; it is not part of the artifact."""
        with replacing(self._entry(key.digest)) as temporary:
            temporary.write_text(json.dumps({"identity": identity, "parts": key.parts, **details}, indent=1))
        return Artifact(key.parts["stage"], key.digest, identity)

    def entry(self, digest: str) -> dict[str, Any] | None:
        """What was recorded under a key, whether or not the bytes are still there; None when nothing was, or when the record is
        damaged. OSError when it cannot be read now."""
        found = read_json(self._entry(digest))
        return found if found and isinstance(found.get("identity"), str) and isinstance(found.get("parts"), dict) else None

    def recorded(self, digest: str) -> float:
        """When something was recorded under a key, in seconds since 1970; 0 when nothing was."""
        path = self._entry(digest)
        return path.stat().st_mtime if path.exists() else 0.0

    def entries(self) -> Iterator[dict[str, Any]]:
        """Everything that was recorded, in the order of the keys; damaged records are left out."""
        for path in sorted((self.state / "keys").glob("*.json")):
            if found := self.entry(path.stem):
                yield found

    def find(self, key: Key, verify: bool = False) -> Artifact | None:
        """The artifact under a key, when it was recorded and every byte is there."""
        entry = self.entry(key.digest)
        if entry is None or not self.has(entry["identity"], verify):
            return None
        return Artifact(key.parts["stage"], key.digest, entry["identity"])

    # work in progress ------------------------------------------------------------------------------------------------

    def workbench(self, digest: str, inputs: Iterable[str] = ()) -> tuple[Path, Path]:
        """(out, scratch) of a key: out is empty, scratch is as an earlier, killed attempt left it.

        inputs: identities of what the work reads. When one of their files was put back since the earlier attempt, it may have been
        read while it was damaged, and scratch is empty too.
        """
        bench = self.state / "work" / digest[:32]
        ages = {path.name: path.stat().st_mtime_ns for one in inputs for path in self._objects_of(one)}
        if (before := read_json(bench / "inputs.json")) is not None and before != ages:
            self.clear_workbench(digest)
        if (bench / "out").exists():  # what a killed attempt left there must not be taken for this one's: an error here stops it
            shutil.rmtree(bench / "out")
        for folder in (bench / "out", bench / "scratch"):
            folder.mkdir(parents=True, exist_ok=True)
        write_text(bench / "inputs.json", json.dumps(ages))
        return bench / "out", bench / "scratch"

    def size(self, identity: str) -> int:
        """Bytes of an artifact's files, as far as they are there."""
        return sum(path.stat().st_size for path in self._objects_of(identity))

    def _objects_of(self, identity: str) -> list[Path]:
        paths = [self._object(md5) for md5 in sorted(set((self.files(identity) or {}).values()))]
        return [path for path in paths if path.exists()]

    def clear_workbench(self, digest: str) -> None:
        """Forget the work in progress of a key."""
        bench = self.state / "work" / digest[:32]
        if (bench / "out").is_dir():
            with self.hashes.own_moves() as moving:
                for path in walk(bench / "out"):
                    if path.stat().st_nlink > 1:  # the store has it: its bytes are known there, and lose a name here
                        with moving(path):
                            path.unlink()
        shutil.rmtree(bench, ignore_errors=True)

    # looking at it -----------------------------------------------------------------------------------------------

    def path(self, name: str) -> Path:
        """Where a stored file or a listing lies, there or not. ValueError for what is no name of one."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a stored file")
        return self._object(name)

    def text(self, md5: str) -> str:
        """A small stored file as text; "" when it is not there."""
        try:
            return self._object(md5).read_text("utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def objects(self) -> list[str]:
        """The names of everything that is kept."""
        return [f"{path.parent.name}{path.name}" for path in sorted(self._objects.glob("??/*")) if not path.name.startswith(NEW)]

    def examine(self) -> Iterator[tuple[str, str]]:
        """Read and hash every object: (its name, what is wrong with it, or nothing). Damaged ones are removed."""
        names = self.objects()
        with ThreadPoolExecutor(READERS) as pool:
            yield from zip(names, pool.map(self._fault, names), strict=True)

    def _fault(self, name: str) -> str:
        try:
            if name.endswith(".dir"):
                return "" if self._listing(name) is not None or not self._drop(name) else "damaged, removed"
            found = self.hashes.file(self._object(name), trust=False)
            return "" if found == name or not self._drop(name) else "damaged, removed"
        except OSError as error:
            return f"cannot be read now, left alone: {error.strerror}"

    # leftovers -------------------------------------------------------------------------------------------------------

    def sweep(self) -> list[Path]:
        """Delete what killed processes left half-written in the store and beside the keys; returns what was deleted."""
        folders = [self.state, self.state / "keys", self.state / "last", self._objects]
        if self._objects.is_dir():
            folders += [folder for folder in self._objects.iterdir() if folder.is_dir()]
        return [path for folder in folders for path in sweep(folder)]


def _identity(listing: bytes) -> str:
    return hashlib.md5(listing, usedforsecurity=False).hexdigest() + ".dir"


def check_writable(state: Path) -> None:
    """BadInput when the state root cannot be written or has hardly any room left: better now than after an hour."""
    try:
        state.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=state):
            pass
    except OSError as error:
        if error.errno in PASSING:
            raise
        raise BadInput(
            f"{state} cannot be written ({error.strerror}). Make it writable, or set CAIRN_HOME to a folder that is."
        ) from None
    if (free := shutil.disk_usage(state).free) < ROOM:
        raise BadInput(
            f"{state}: {free / 1e6:.0f} MB are free, {ROOM / 1e6:.0f} MB are needed to begin. Make room, or set CAIRN_HOME elsewhere."
        )
