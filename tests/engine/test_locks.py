"""Who holds a lock, told correctly at every moment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tasks.engine.locks import FOLDER, alive, holder, is_held, lock, meaning, slot
from tests.conftest import ROOT

WANT = "import sys; from pathlib import Path; from tasks.engine.locks import lock\nwith lock(Path(sys.argv[1]), sys.argv[2]): pass\n"


def told(state: Path, name: str) -> str:
    """What another process is told that wants a lock which this one holds."""
    other = subprocess.Popen([sys.executable, "-c", WANT, str(state), name], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        assert other.stderr is not None
        return other.stderr.readline().strip().removeprefix("cairn: ")
    finally:
        other.kill()
        other.communicate()


def test_threads_of_one_process_wait_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def want() -> None:
        with lock(tmp_path, "workspace"):
            pass

    other = threading.Thread(target=want)
    with lock(tmp_path, "workspace"):
        other.start()
        other.join(0.1)
        assert other.is_alive()
    other.join()
    assert capsys.readouterr().err == ""


def test_the_holder_is_named_with_its_command_and_since_when(tmp_path: Path) -> None:
    with lock(tmp_path, "workspace"):
        assert is_held(tmp_path / "locks/workspace")
        said = told(tmp_path, "workspace")
    assert f"held by process {os.getpid()} (" in said and " ".join(sys.orig_argv)[:200] in said and " since 20" in said
    assert said.startswith("waiting for the workspace (data/, dvc.lock), ")
    assert "unknown" not in said


@pytest.mark.parametrize("left", ["", "{", "4711", json.dumps({"process": "x"})])
def test_a_lock_just_taken_names_nobody_wrongly(tmp_path: Path, left: str) -> None:
    """Between taking a lock and writing its file a reader finds it empty, or half, or as an earlier version left it."""
    with lock(tmp_path, "workspace"):
        (tmp_path / "locks/workspace").write_text(left)
        assert told(tmp_path, "workspace").endswith("held by a process that has just taken it")


def test_one_that_was_killed_is_not_named_as_the_holder(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    import platform

    path = tmp_path / "x"
    path.write_text(json.dumps({"process": gone.pid, "host": platform.node(), "command": "cairn run", "since": "now"}))
    assert not alive(gone.pid)
    assert holder(path) == "a process that has just taken it from one that was killed"
    path.write_text(json.dumps({"process": gone.pid, "host": "elsewhere", "command": "cairn run", "since": "noon"}))
    assert holder(path) == f"process {gone.pid} on elsewhere (cairn run) since noon"


def test_who_let_go_is_not_named(tmp_path: Path) -> None:
    with lock(tmp_path, "promote"):
        pass
    assert (tmp_path / "locks/promote").read_text() == "" and not is_held(tmp_path / "locks/promote")
    assert meaning("promote") == "the registry" and meaning("slot-cuda-2") == "a place for trainings on cuda"


def test_places_for_trainings_are_taken_one_by_one(tmp_path: Path) -> None:
    names = ("slot-cpu", "slot-cpu-2")
    with slot(tmp_path, "cpu", 2):
        assert [is_held(tmp_path / FOLDER / name) for name in names] == [True, False]
        with slot(tmp_path, "cpu", 2):
            assert [is_held(tmp_path / FOLDER / name) for name in names] == [True, True]
    assert not any(is_held(tmp_path / FOLDER / name) for name in names)
