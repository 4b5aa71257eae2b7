"""What a result depends on: the one cache key, and the one list of code that both drivers read.

The list is `dvc.yaml`: a stage's `deps` name the code files and folders that count, its `params` the settings. Cairn hashes them the
way DVC does (md5 of a file; for a folder, md5 of the sorted listing), so "unchanged" means the same to `cairn run` and `dvc repro`.
Imports neither prefect nor mlflow nor torch.
"""

from __future__ import annotations

import ast
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
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from tasks import STAGES
from tasks.contract.params import BadInput, read_yaml
from tasks.engine import champion, methods, start
from tasks.engine.roles_lock import in_force
from tasks.engine.settings import PIPELINE, ROLES_LOCK, Settings, asked, dig

DATA = "data/"
"""Deps and outs under this folder are artifacts; all other deps are code or files that people edit."""

CANDIDATE = "merge"
"""The stage whose artifact may become champion."""

PLUMBING = "tasks.engine"
"""The package whose modules carry results but compute none: they choose what runs, hash it, store it and report it. What they pass into
a method (params, seeds, identities) is in the key by value. A contract of import-linter forbids methods to import it."""

_IGNORED = re.compile(r"(^|/)(__pycache__|\.ruff_cache|\.mypy_cache)(/|$)|\.py[co]$")
"""What `.dvcignore` leaves out; a test compares the two."""


# --- hashing as DVC does -------------------------------------------------------------------------------------------


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
        self._db = _healed(self._file)

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
    database = sqlite3.connect(file, timeout=30, isolation_level=None, check_same_thread=False)
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


# --- dvc.yaml, the one list ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Listed:
    """What dvc.yaml says of a stage, with `${...}` filled in from the active params."""

    stage: str
    inputs: tuple[str, ...]
    """stages whose artifacts it reads (deps `data/<stage>`)"""
    code: tuple[str, ...]
    """code files and folders, and other files that people edit"""
    settings: tuple[str, ...]
    """dotted keys of params/pipeline.yaml"""
    roles: tuple[str, ...]
    """roles whose servers' reports in params/roles.lock count"""
    files: tuple[str, ...]
    """params files that count whole"""
    out: str
    """its artifact folder"""
    extra: tuple[str, ...]
    """files of the artifact that also stand elsewhere (metrics)"""


def listed(settings: Settings) -> dict[str, Listed]:
    """Every stage of dvc.yaml, in its order."""
    tree = read_yaml(settings.project / "dvc.yaml")
    stages = tree.get("stages") if isinstance(tree, Mapping) else None
    if not isinstance(stages, Mapping) or (lacking := [name for name in STAGES if name not in stages]):
        what = f"the stage {lacking[0]!r}" if isinstance(stages, Mapping) else "a mapping of stages"
        raise BadInput(f"dvc.yaml: {what} is missing. {RESTORE}")
    found = {}
    for name, body in stages.items():
        try:
            found[name] = _listed(name, body, settings)
        except (AttributeError, TypeError, KeyError, IndexError, StopIteration):
            raise BadInput(f"dvc.yaml: stage {name!r} does not have cmd, deps, params and outs as DVC writes them. {RESTORE}") from None
    return found


RESTORE = "`git checkout HEAD -- dvc.yaml` brings the committed one back."


def _fill(text: str, tree: Mapping[str, Any]) -> str:
    try:
        return re.sub(r"\$\{([\w.]+)\}", lambda found: str(dig(tree, found[1])), text)
    except KeyError as error:
        raise BadInput(f"dvc.yaml: {text!r}: {PIPELINE} has no key {error}") from None


def _listed(name: str, body: Mapping[str, Any], settings: Settings) -> Listed:
    deps = [_fill(dep, settings.tree) for dep in body.get("deps", ())]
    keys: list[str] = []
    roles: list[str] = []
    files: list[str] = []
    for entry in body.get("params", ()):
        for file, wanted in entry.items():
            if file == PIPELINE:
                keys += [_fill(key, settings.tree) for key in wanted]
            elif file == ROLES_LOCK:
                roles += wanted
            else:
                files.append(_fill(file, settings.tree))
    metrics = [next(iter(entry)) if isinstance(entry, dict) else entry for entry in body.get("metrics", ())]
    return Listed(
        stage=name,
        inputs=tuple(dep.removeprefix(DATA) for dep in deps if dep.startswith(DATA)),
        code=tuple(dep for dep in deps if not dep.startswith(DATA)),
        settings=tuple(keys),
        roles=tuple(roles),
        files=tuple(files),
        out=body["outs"][0],
        extra=tuple(metrics),
    )


# --- the key ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Key:
    """The key of a result and the parts it was made of, so that a miss can be explained."""

    parts: Mapping[str, Any]

    @cached_property
    def digest(self) -> str:
        """sha256 of the parts."""
        return hashlib.sha256(canonical(self.parts).encode()).hexdigest()


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: one spelling for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def key_of(settings: Settings, about: Listed, inputs: Mapping[str, str], hashes: Hashes) -> Key:
    """The key of a stage's result.

    inputs: stage -> identity of its artifact. Everything else is read now: the bytes of the listed code, the params as they would
    be used, the library versions, what `tasks.engine.start` fixes of CPU kernels (threads where the stage has a say in them),
    the identity of
    every checkpoint that plays a role, what the server of every other model said it is, and whom the candidate has to meet.
    """
    reports = in_force(settings)
    loop = settings.loop(about.stage)
    meets = CANDIDATE in inputs and champion.CHAMPION in about.files
    return Key(
        {
            "stage": about.stage,
            "method": settings.method(about.stage),
            "params": settings.params(about.stage).model_dump(mode="json"),
            **({"loop": loop.model_dump(mode="json")} if loop else {}),
            **({"agents": agents} if (agents := settings.agents(about.stage)) else {}),
            "inputs": {name: inputs[name] for name in about.inputs},
            "code": {path: hashes.path(settings.project / path) for path in about.code},
            "settings": {key: _used(settings, key) for key in about.settings if key != about.stage},
            "servers": {role: reports[role] for role in about.roles},
            "versions": read_yaml(settings.project / "params/versions.yaml"),
            "kernels": start.kernels(settings.shared.threads if "threads" in about.settings else 1),
            **({"opponent": champion.read(settings.project / champion.CHAMPION).opponent(inputs[CANDIDATE])} if meets else {}),
        }
    )


def _used(settings: Settings, key: str) -> Any:
    """A shared setting as it is used, defaults filled in; of a role what changes answers, wherever and however it is reached."""
    section, _, role = key.partition(".")
    if section == "roles":
        return asked(settings.shared.roles[role])
    return dig(settings.shared.model_dump(mode="json"), key)


def changed(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Which leaves differ between the parts of two keys, as readable lines."""
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from changed(before, after, f"{prefix}{name}: " if prefix == "" else f"{prefix}{name}.")
        else:
            yield f"{prefix}{name} {_short(before)} -> {_short(after)}"


def _short(value: Any) -> str:
    text = "none" if value is None else value if isinstance(value, str) else canonical(value)
    return text if len(text) <= 24 else text[:8] + "..." + text[-4:]


# --- the closure -----------------------------------------------------------------------------------------------------


def check_closure(settings: Settings, about: Listed) -> None:
    """Stop a run whose code is not wholly listed: each module that the stage can reach must be among its deps.

    Reached are: the method, the room's task and its training loop, the way of acting, the players of its model roles, everything of
    this project they import (lazy imports included), and every `module:name` that stands in the params.
    """
    for path in sorted(closure(settings, about)):
        if not any(path == dep or path.startswith(f"{dep}/") for dep in about.code):
            raise BadInput(
                f"stage {about.stage!r} uses {path}, which is not among its deps in dvc.yaml, so a change of it would go unseen. "
                f"Add `- {path}` (or its folder) to the deps of {about.stage!r}."
            )


def closure(settings: Settings, about: Listed) -> set[str]:
    """Paths of the project's own modules that a stage can reach (package `__init__` files included, plumbing left out)."""
    method = settings.method(about.stage)
    roots = [f"tasks.{about.stage}.{method}", f"tasks.{about.stage}.task"]
    roots += [f"tasks.{about.stage}.core.loop"] if methods.loop(about.stage) else []
    roots += [f"tasks.agents.{agents['method']}"] if (agents := settings.agents(about.stage)) else []
    roots += ["tasks.players.roles"] if any(key.startswith("roles.") for key in about.settings) else []
    roots += [name.partition(":")[0] for name in _module_names(settings.values(about.stage))]
    return {path.relative_to(settings.project).as_posix() for path in reach(settings.project, roots).values()}


def _module_names(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _module_names(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _module_names(item)
    elif isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
        yield value


def reach(project: Path, roots: list[str]) -> dict[str, Path]:
    """module -> file for every module of the project reachable by imports from `roots`."""
    found: dict[str, Path] = {}
    todo = list(roots)
    while todo:
        name = todo.pop()
        if name in found or name == PLUMBING or name.startswith(f"{PLUMBING}."):
            continue
        path = _file_of(project, name)
        if path is None:
            continue
        found[name] = path
        todo += [name.rpartition(".")[0]] if "." in name else []
        todo += _imports(path, name)
    return found


def _file_of(project: Path, module: str) -> Path | None:
    base = project.joinpath(*module.split("."))
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if path.is_file():
            return path
    return None


def _imports(path: Path, module: str) -> list[str]:
    """Every module a file imports, at the top or inside a function; names under `if TYPE_CHECKING` are for checkers only."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names: list[str] = []
    for node in _run_nodes(methods.syntax(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parent = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parent, *([node.module] if node.module else [])])
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return names


def _run_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from _run_nodes(other)
            continue
        yield node
        yield from _run_nodes(node)
