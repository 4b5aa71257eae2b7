"""Deleting results from the store, for who holds the lock of `tasks.engine.locks.clearing`.

Whatever ends it half-way, the rest is found by the next one, and nothing looks whole that is not: files go before the listing that
names them, and that before the record of the result. OSError for what cannot be deleted; what was to follow stays.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable

from tasks.engine.artifact import Store
from tasks.engine.hashes import walk


def clear(store: Store, views: Iterable[str], work: Iterable[str], objects: Iterable[str], digests: Iterable[str]) -> None:
    """Delete folders for reading, work folders, stored files and listings, and the records of these keys."""
    for identity in views:
        _view(store, identity)
    for name in work:
        store.clear_workbench(name)
    for name in sorted(objects, key=lambda name: name.endswith(".dir")):
        store.path(name).unlink(missing_ok=True)
    for digest in digests:
        (store.state / "keys" / f"{digest}.json").unlink(missing_ok=True)


def _view(store: Store, identity: str) -> None:
    """What is known of bytes that have another name stays known. A link to a folder goes alone, and not what lies behind it."""
    folder = store.state / "views" / identity
    if folder.is_symlink():
        folder.unlink()
        return
    with store.hashes.own_moves() as moving:
        for path in walk(folder):
            with moving(path):
                path.unlink()
    shutil.rmtree(folder)
