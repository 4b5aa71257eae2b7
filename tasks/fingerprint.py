"""What a result depends on: the one cache key, and the one list of code that both drivers read.

The list is `dvc.yaml`: a stage's `deps` name the code files and folders that count, its `params` the settings. Cairn hashes them the
way DVC does (md5 of a file; for a folder, md5 of the sorted listing), so "unchanged" means the same to `cairn run` and `dvc repro`.
Imports neither prefect nor mlflow nor torch.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from tasks import start
from tasks.params import BadInput, read_yaml
from tasks.roles_lock import in_force
from tasks.settings import PIPELINE, ROLES_LOCK, Settings, asked, dig

DATA = "data/"
"""Deps and outs under this folder are artifacts; all other deps are code or files that people edit."""

PLUMBING = frozenset(
    f"tasks.{name}"
    for name in (
        "artifact",
        "cached",
        "dvc_lock",
        "execute",
        "fingerprint",
        "forked",
        "live",
        "keys",
        "methods",
        "process",
        "roles_lock",
        "settings",
        "start",
        "track",
        "versions",
    )
)
"""Modules that carry results but compute none: they choose what runs, hash it, store it and report it. What they pass into a
method (params, seeds, identities) is in the key by value. A test fails when one of them is imported by a method."""

_IGNORED = re.compile(r"(^|/)(__pycache__|\.ruff_cache|\.mypy_cache)(/|$)|\.py[co]$")
"""What `.dvcignore` leaves out; a test compares the two."""


# --- hashing as DVC does -------------------------------------------------------------------------------------------


class Hashes:
    """md5 of files, remembered by inode, size and modification time, so that unchanged files are hashed once."""

    def __init__(self, state: Path) -> None:
        state.mkdir(parents=True, exist_ok=True)
        self._lock = Lock()
        self._db = sqlite3.connect(state / "hashes.db", timeout=30, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute("CREATE TABLE IF NOT EXISTS md5 (dev INT, ino INT, size INT, mtime INT, md5 TEXT, PRIMARY KEY (dev, ino))")

    def file(self, path: Path, trust: bool = True) -> str:
        """md5 of a file; with `trust` False it is read even if it looks unchanged."""
        seen = path.stat()
        name = (seen.st_dev, seen.st_ino)
        looks = (seen.st_size, seen.st_mtime_ns)
        if trust:
            with self._lock:
                row = self._db.execute("SELECT size, mtime, md5 FROM md5 WHERE dev=? AND ino=?", name).fetchone()
            if row and row[:2] == looks:
                return str(row[2])
        value = file_md5(path)
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO md5 VALUES (?,?,?,?,?)", (*name, *looks, value))
        return value

    def listing(self, folder: Path, trust: bool = True) -> dict[str, str]:
        """relative path -> md5 of every file of a folder that is not ignored."""
        return {
            path.relative_to(folder).as_posix(): self.file(path, trust)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not _IGNORED.search(path.relative_to(folder).as_posix())
        }

    def path(self, path: Path) -> str:
        """Identity of a file (md5) or a folder (md5 of its listing, with `.dir`), as DVC would say it."""
        return folder_id(self.listing(path)) if path.is_dir() else self.file(path)


def file_md5(path: Path) -> str:
    """md5 of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


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
    return {name: _listed(name, body, settings) for name, body in tree["stages"].items()}


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
    be used, the library versions, what `tasks.start` fixes of CPU kernels (threads where the stage has a say in them), the identity of
    every checkpoint that plays a role, and what the server of every other model said it is.
    """
    reports = in_force(settings)
    return Key(
        {
            "stage": about.stage,
            "method": settings.method(about.stage),
            "params": settings.params(about.stage).model_dump(mode="json"),
            "inputs": {name: inputs[name] for name in about.inputs},
            "code": {path: hashes.path(settings.project / path) for path in about.code},
            "settings": {key: _used(settings, key) for key in about.settings if key != about.stage},
            "servers": {role: reports[role] for role in about.roles},
            "versions": read_yaml(settings.project / "params/versions.yaml"),
            "kernels": start.kernels(settings.shared.threads if "threads" in about.settings else 1),
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

    Reached are: the method and the room's task, the players of its model roles, everything of this project they import (lazy imports
    included), and every `module:name` that stands in the params.
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
    roots += ["tasks.llm.roles"] if any(key.startswith("roles.") for key in about.settings) else []
    roots += [name.partition(":")[0] for name in _module_names(settings.params(about.stage).model_dump())]
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
        if name in found or name in PLUMBING:
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
    for node in _run_nodes(ast.parse(path.read_text(encoding="utf-8"))):
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
