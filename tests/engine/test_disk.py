"""A full disk, too few file descriptors, a disk that does not answer: the same few words whoever noticed it, and nothing lost."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows import exit_codes
from tasks.engine import disk, process


def http_500() -> Exception:
    """What Prefect's client raises when its server's database is full."""
    import httpx

    request = httpx.Request("POST", "http://127.0.0.1:1/api/task_runs/")
    return httpx.HTTPStatusError("Server error '500 Internal Server Error'", request=request, response=httpx.Response(500))


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=size))


FULL = {
    "store": lambda: OSError(errno.ENOSPC, "No space left on device", "/x/store/files/md5/ab/.new-1"),
    "quota": lambda: OSError(errno.EDQUOT, "Disk quota exceeded", "/x/y"),
    "calls or hashes": lambda: sqlite3.OperationalError("database or disk is full"),
    "mlflow": lambda: RuntimeError("BAD_REQUEST: (sqlite3.OperationalError) database or disk is full [SQL: INSERT INTO ...]"),
    "postgres": lambda: RuntimeError('could not extend file "base/1": No space left on device'),
    "safetensors": lambda: RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    "a group": lambda: ExceptionGroup(
        "unhandled errors in a TaskGroup", [ValueError("x"), OSError(errno.ENOSPC, "No space left on device")]
    ),
}


@pytest.mark.parametrize("where", FULL)
def test_a_full_disk_is_said_plainly_whoever_noticed_it(where: str) -> None:
    said = exit_codes._in_words(FULL[where]())
    assert said.startswith(("No space left", "Disk quota exceeded")) and "make room, and run again" in said, said
    assert "CAIRN_DEBUG" not in said


def test_what_it_came_from_counts_too() -> None:
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "/x")
        except OSError as error:
            raise RuntimeError("flow run crashed") from error
    except RuntimeError as error:
        assert "make room" in exit_codes._in_words(error)


def test_an_http_500_with_a_full_disk_is_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 1_000_000)
    said = exit_codes._in_words(http_500())
    assert said.startswith("No space left on the disk of") and "(1 MB free)" in said and "500 Internal Server Error" in said
    free(monkeypatch, 60_000_000)
    assert "Only 60 MB are free" in exit_codes._in_words(http_500())
    free(monkeypatch, 10**12)
    assert exit_codes._in_words(http_500()).startswith("HTTPStatusError: ")


def test_a_training_whose_library_has_words_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = {"stage": "sft", "method": "sft"}
    said = process._last_words(spec, tmp_path, 1, ["SafetensorError", "I/O error: No space left on device (os error 28)"])
    assert said.startswith("sft/sft: No space left on the disk of") and "make room" in said
    free(monkeypatch, 10**12)
    assert process._last_words(spec, tmp_path, 1, ["ValueError", "odd"]) == "sft/sft: ValueError: odd"


@pytest.mark.parametrize(
    ("number", "part"),
    [
        (errno.EMFILE, "ulimit -n"),
        (errno.EIO, "nothing was deleted"),
        (errno.ESTALE, "nothing was deleted"),
        (errno.ENOMEM, "nothing was deleted"),
        (errno.EACCES, "give this user the right"),
    ],
)
def test_other_answers_of_a_disk(number: int, part: str) -> None:
    said = exit_codes._in_words(OSError(number, "odd", "/x/y"))
    assert part in said and "/x/y" in said


def test_a_refused_connection_has_nothing_to_do_with_a_disk() -> None:
    assert disk.in_words(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")) is None
    assert disk.in_words(ValueError("odd")) is None
