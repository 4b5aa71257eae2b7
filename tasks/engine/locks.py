"""Locks that die with their process (flock), and words for who holds one, ours or DVC's."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.engine.files import read_json

FOLDER = "locks"
"""Below the state root: a file for each lock; its name says what is locked (see `meaning`)."""

USE, CLEARING = "use", "clear"
"""Names of locks: of who uses the store, each a file of its own; of who deletes from it."""


@contextmanager
def lock(state: Path, name: str, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """A lock that dies with its process (flock). `waiting` is told once who holds it when it is not free."""
    path = state / FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not _mine(path):  # a thread of ours is no news
                (waiting or _say)(f"waiting for {meaning(name)}, held by {holder(path)}")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(json.dumps(_myself()))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)  # so that nobody is told of us who waits for the next one


@contextmanager
def slot(state: Path, device: str, places: int) -> Iterator[None]:
    """One of the places for trainings on a device: a free one, or the last of them when it becomes free. places: at least 1."""
    names = [f"slot-{device}", *(f"slot-{device}-{number}" for number in range(2, places + 1))]
    free = next((name for name in names if not is_held(state / FOLDER / name)), names[-1])
    with lock(state, free):
        yield


@contextmanager
def using(state: Path, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """While the block runs, nobody deletes results that it may have found (`cairn gc`); one that deletes now is waited for."""
    name = f"{USE}-{os.getpid()}-{os.urandom(4).hex()}"
    with lock(state, name):
        try:
            if is_held(state / FOLDER / CLEARING):  # looked at after the own lock is taken: either side sees the other
                with lock(state, CLEARING, waiting):
                    pass
            yield
        finally:
            (state / FOLDER / name).unlink(missing_ok=True)


@contextmanager
def clearing(state: Path) -> Iterator[list[str]]:
    """While the block runs, nobody begins to use the store (see `using`). Gives who uses it now, or holds any other lock, in words."""
    with lock(state, CLEARING):
        files = [path for path in sorted((state / FOLDER).glob("*")) if path.name != CLEARING]
        held = [path for path in files if is_held(path)]
        for path in files:
            process = (read_json(path) or {}).get("process")  # of a killed one its file is left; a new one has not written yet
            if path not in held and path.name.startswith(f"{USE}-") and isinstance(process, int) and not alive(process):
                path.unlink(missing_ok=True)
        yield [f"{meaning(path.name)}: {holder(path)}" for path in held]


def _myself() -> dict[str, Any]:
    return {
        "process": os.getpid(),
        "command": " ".join(sys.orig_argv)[:200],
        "host": platform.node(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _mine(path: Path) -> bool:
    said = read_json(path) or {}
    return (said.get("process"), said.get("host")) == (os.getpid(), platform.node())


def holder(path: Path) -> str:
    """Who holds a lock, in words. Its file may still be empty (just taken), or name somebody who was killed."""
    said = read_json(path) or {}
    if not isinstance(number := said.get("process"), int):
        return "a process that has just taken it"
    here = said.get("host") == platform.node()
    if here and not alive(number):
        return "a process that has just taken it from one that was killed"
    where = "" if here else f" on {said.get('host')}"
    return f"process {number}{where} ({said.get('command')}) since {said.get('since')}"


def is_held(path: Path) -> bool:
    """Whether somebody holds a lock (of ours, or DVC's tmp/lock) now."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def alive(process: int) -> bool:
    """Whether a process of this machine lives."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def meaning(name: str) -> str:
    """What a lock is for, in words."""
    kind, _, rest = name.partition("-")
    words = {
        "key": "the same result, which another run is making",
        "view": "an artifact that is being laid out",
        "workspace": "the workspace (data/, dvc.lock)",
        "slot": f"a place for trainings on {rest.partition('-')[0]}",
        "promote": "the registry",
        "results": f"the results file of paper {rest}",
        USE: "the store, for a run or another command",
        CLEARING: "the store, which `cairn gc` clears up",
    }
    return words.get(kind, name)


def _say(text: str) -> None:
    print(f"cairn: {text}", file=sys.stderr, flush=True)
