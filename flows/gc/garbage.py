"""What nobody names: results, their stored files, folders for reading, and work that no run goes on with."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.gc.references import Wish, everything, is_young
from flows.survey import survey
from tasks.engine.artifact import Store
from tasks.engine.hashes import walk
from tasks.engine.job import identities
from tasks.engine.plan import Plan

UNRECORDED = "files that no result of this store has (fetched by DVC, or another project's)"


@dataclass(frozen=True)
class Result:
    """A recorded result. digest: of its key. why: who names it, "" for one that goes. size: bytes, of shared files too."""

    digest: str
    stage: str
    method: str
    identity: str
    size: int
    why: str = ""


@dataclass
class Garbage:
    """What would go, and what stays. objects: names of stored files and listings. unrecorded: how many stored files stay since no
    record names them, and their bytes. freed: bytes that come free."""

    results: list[Result] = field(default_factory=list)
    kept: list[Result] = field(default_factory=list)
    objects: list[str] = field(default_factory=list)
    views: list[str] = field(default_factory=list)
    work: list[str] = field(default_factory=list)
    unrecorded: tuple[int, int] = (0, 0)
    freed: int = 0

    @property
    def empty(self) -> bool:
        """Whether there is nothing to delete."""
        return not (self.results or self.objects or self.views or self.work)


def find(plan: Plan, wish: Wish) -> Garbage:
    """Look for it; nothing is deleted."""
    store, steps = plan.store, survey(plan)
    named = everything(plan, steps, wish)
    found = Garbage()
    going: set[str] = set()
    recorded: set[str] = set()
    for path in sorted((store.state / "keys").glob("*.json")):
        if (entry := store.entry(path.stem)) is None:
            continue
        names, why = identities(store, entry), named.get(entry["identity"], "")
        (found.kept if why else found.results).append(_result(store, path.stem, entry, why))
        going |= set() if why else names
        recorded |= set(_with_files(store, names))
    staying = set(_with_files(store, named))
    unrecorded = [name for name in store.objects() if name not in recorded | staying and not is_young(store.path(name))]
    going = set(_with_files(store, going)) | (set(unrecorded) if wish.unrecorded else set())
    found.objects = sorted(name for name in going - staying if store.path(name).exists())
    if not wish.unrecorded:
        found.unrecorded = len(unrecorded), sum(store.path(name).stat().st_size for name in unrecorded)
    found.views = [one.name for one in sorted((store.state / "views").glob("*.dir")) if one.name not in staying and not is_young(one)]
    found.work = [folder.name for folder in sorted((store.state / "work").glob("*")) if _is_left(store, folder, wish)]
    found.freed = _freed(store, found)
    return found


def _with_files(store: Store, names: Iterable[str]) -> Iterator[str]:
    """Names of stored folders and files, and of the files in the folders."""
    for name in names:
        yield name
        yield from (store.files(name) or {}).values() if name.endswith(".dir") else ()


def _is_left(store: Store, folder: Path, wish: Wish) -> bool:
    """Whether a work folder is nobody's: its result is recorded, or a person lets go what interrupted runs would go on from."""
    if folder.is_symlink() or not folder.is_dir() or (folder / "out").is_symlink() or any(map(is_young, (folder, *folder.rglob("*")))):
        return False
    return wish.unfinished or any((store.state / "keys").glob(f"{folder.name}*.json"))


def _result(store: Store, digest: str, entry: Mapping[str, Any], why: str) -> Result:
    parts = entry["parts"]
    stage = f"{parts['stage']}: {parts['unit']}" if parts.get("unit") else str(parts.get("stage"))
    return Result(digest, stage, str(parts.get("method") or ""), entry["identity"], store.size(entry["identity"]), why)


def _freed(store: Store, found: Garbage) -> int:
    """Bytes of the files all of whose names go: one that data/ shows as well stays."""
    paths = [store.path(name) for name in found.objects]
    for folder in [store.state / "views" / name for name in found.views] + [store.state / "work" / name for name in found.work]:
        paths += [] if folder.is_symlink() else walk(folder)
    names: dict[tuple[int, int], list[os.stat_result]] = {}
    for path in paths:
        with suppress(FileNotFoundError):  # a run that goes on while it is only looked has just taken it away
            about = path.lstat()
            names.setdefault((about.st_dev, about.st_ino), []).append(about)
    return sum(files[0].st_size for files in names.values() if len(files) >= files[0].st_nlink)
