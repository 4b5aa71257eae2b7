"""DVC beside us: its locks and its lock file in our words, and one place for the bytes of both."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.dvc_command import busy, cache_folder, check_cache, holders
from tasks.contract.params import BadInput
from tasks.engine import dvc_lock
from tests.conftest import Project, make_project

BUSY = "ERROR: 'data/sft' is busy, it is being blocked by:\n  (PID 1): dvc repro\n\nIf there are no processes with such PIDs, you can manually remove '.dvc/tmp/rwlock' and try again."


def rwlock(project: Path, text: str) -> None:
    (project / ".dvc/tmp").mkdir(parents=True, exist_ok=True)
    (project / ".dvc/tmp/rwlock").write_text(text)


def entry(number: int) -> str:
    return json.dumps(
        {"write": {"data/sft": {"pid": number, "cmd": "dvc repro"}}, "read": {"data/base": [{"pid": number, "cmd": "dvc repro"}]}}
    )


def test_a_dvc_that_lives_is_named_and_its_advice_left_out(tmp_path: Path) -> None:
    living = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "dvc", "repro"])
    try:
        rwlock(tmp_path, entry(living.pid))
        said = busy(tmp_path, BUSY)
        assert said == f"process {living.pid} (dvc repro) holds data/base, data/sft"
        assert "manually remove" not in said
    finally:
        living.kill()
        living.wait()
    assert "but it is gone; DVC forgets it by itself" in busy(tmp_path, BUSY)


def test_a_number_that_another_program_has_now_is_seen(tmp_path: Path) -> None:
    other = subprocess.Popen(["sleep", "60"])
    while b"sleep" not in Path(f"/proc/{other.pid}/cmdline").read_bytes()[:6]:
        time.sleep(0.01)
    try:
        rwlock(tmp_path, entry(other.pid))
        now, left = holders(tmp_path)
        assert not now and "belongs to another program now (sleep 60)" in left[0] and "delete .dvc/tmp/rwlock" in left[0]
    finally:
        other.kill()
        other.wait()


def test_a_damaged_file_of_locks_and_the_repository_lock(tmp_path: Path) -> None:
    rwlock(tmp_path, "{")
    assert ".dvc/tmp/rwlock is damaged" in busy(tmp_path, "ERROR: Unable to read RWLock-file")
    (tmp_path / ".dvc/tmp/rwlock").unlink()
    with (tmp_path / ".dvc/tmp/lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(f" {os.getpid()}\n")
        file.flush()
        assert busy(tmp_path, "Unable to acquire lock. Most likely ...") == f"process {os.getpid()} holds the repository"
    assert "has let go of it" in busy(tmp_path, "Unable to acquire lock. Most likely ...")
    assert busy(tmp_path, "odd\nERROR: another reason") == "ERROR: another reason"


# --- dvc.lock --------------------------------------------------------------------------------------------------------

CONFLICT = "schema: '2.0'\nstages:\n<<<<<<< HEAD\n  worlds: {cmd: a}\n=======\n  worlds: {cmd: b}\n>>>>>>> other\n"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (CONFLICT, "merge conflict (from line 3). Take one side whole, with `git checkout --ours dvc.lock`"),
        ("stages: [", "dvc.lock: not valid YAML"),
        ("just words", "does not hold stages"),
        ("stages: [worlds]", "does not hold stages"),
        ("stages: {worlds: {deps: [x]}}", "does not hold stages"),
        ("stages: {worlds: 3}", "does not hold stages"),
        ("\x00\x01", "dvc.lock"),
    ],
)
def test_a_lock_file_that_is_none_gets_a_remedy(tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "dvc.lock").write_text(text)
    with pytest.raises(BadInput) as caught:
        dvc_lock.stages(tmp_path)
    assert part in str(caught.value) and "git checkout" in str(caught.value)


@pytest.mark.parametrize("text", [None, "", "schema: '2.0'\n", "schema: '2.0'\nstages: {}\n"])
def test_no_lock_file_or_an_empty_one_holds_nothing(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "dvc.lock").write_text(text)
    assert dvc_lock.stages(tmp_path) == {}


def test_a_conflict_ends_every_command_with_2(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    (project.folder / "dvc.lock").write_text(CONFLICT)
    for command in (["status"], ["run"]):
        answer = project.cairn(*command, check=False)
        assert answer.returncode == 2 and "merge conflict" in answer.stderr and "Traceback" not in answer.stderr, answer.stderr
    assert not (project.folder / "data").exists()


# --- one place for the bytes -----------------------------------------------------------------------------------------


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose user has no DVC configuration of an own."""
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "global"))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "system"))
    project = make_project(tmp_path / "project")
    project.environment |= {name: os.environ[name] for name in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR")}
    return project


def test_the_cache_is_read_as_dvc_reads_it(configured: Project, tmp_path: Path) -> None:
    """Each level against DVC's own answer."""
    from dvc.repo import Repo

    def theirs() -> str:
        with Repo(str(configured.folder)) as repo:
            return str(repo.cache.local.path).removesuffix("/files/md5")

    own = configured.folder / ".dvc"
    steps: list[tuple[Path, str]] = [
        (own / "config", "[core]\n    analytics = false\n"),
        (tmp_path / "global/config", "[cache]\n    dir = far/away\n"),
        (own / "config", '[\'remote "shelf"\']\n    url = ../shelf\n[cache]\n    dir = ../.cairn/store\n    type = "reflink,copy"\n'),
        (own / "config.local", "[CACHE]\n    DIR = /srv/odd place\n"),
        (own / "config.local", "[cache]\n    dir = ~/cache  # mine\n"),
    ]
    for file, text in steps:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        assert os.path.realpath(cache_folder(configured.folder)[0]) == os.path.realpath(theirs()), text


def test_two_places_are_refused_with_the_command_that_makes_them_one(configured: Project, tmp_path: Path) -> None:
    elsewhere = str(tmp_path / "else where")
    answer = configured.cairn("status", check=False, CAIRN_HOME=elsewhere)
    assert answer.returncode == 2, answer.stdout
    command = next(line for line in answer.stderr.splitlines() if "dvc config" in line).removeprefix("cairn: ")
    assert command == f"dvc config --local cache.dir '{elsewhere}/store'"
    configured.run("sh", "-c", f"{sys.executable} -m {command}")
    assert configured.cairn("status", CAIRN_HOME=elsewhere).returncode == 0
    back = configured.cairn("status", check=False)
    assert back.returncode == 2 and f"set CAIRN_HOME='{elsewhere}'" in back.stderr
    with pytest.raises(BadInput, match="DVC keeps its files in"):
        check_cache(configured.folder, configured.folder / ".cairn")


def test_a_link_to_the_store_is_the_store(configured: Project, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(configured.folder / ".cairn")
    check_cache(configured.folder, tmp_path / "link")
