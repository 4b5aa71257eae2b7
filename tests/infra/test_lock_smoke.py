"""The installed versions work together: what `make lock` proves before it writes, with the environment of the tests.

With SQLAlchemy 2.1, for one, everything installs, the server starts, and no schedule ever creates a run.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra import lock, lock_smoke
from tests.conftest import ROOT


@pytest.mark.long
@pytest.mark.parametrize("name", list(lock_smoke.CHECKS))
def test_it_works(tmp_path: Path, name: str) -> None:
    """Prefect's part starts a server and waits until its scheduler has created a run, and a served flow has run it."""
    command = [sys.executable, str(ROOT / "infra/lock_smoke.py"), str(tmp_path), name]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0 and answer.stdout.startswith(f"{name}: "), answer.stdout + answer.stderr


def test_a_smoke_that_fails_leaves_the_locks_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the other way round: what passes is written."""
    (tmp_path / "params").mkdir()
    (tmp_path / "tasks/engine").mkdir(parents=True)
    (tmp_path / "tasks/engine/start.py").write_text((ROOT / "tasks/engine/start.py").read_text())
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    pins = "\n".join(f"{name}==1.0" for name in (*lock.NUMERIC, "zope"))
    asked: list[Any] = []

    def run(command: list[Any], **_: Any) -> SimpleNamespace:
        asked.append(command)
        return SimpleNamespace(returncode=code)

    monkeypatch.setattr(lock, "ROOT", tmp_path)
    monkeypatch.setattr(lock.venv, "create", lambda *_, **__: None)
    monkeypatch.setattr(lock, "_pip", lambda python, verb, *_, **__: pins if verb == "freeze" else '{"install": []}')
    monkeypatch.setattr(lock.subprocess, "run", run)
    for code, written in ((1, []), (0, ["requirements-cuda.lock", "requirements.lock"])):
        assert lock.main() == code
        assert sorted(path.name for path in tmp_path.glob("*.lock")) == written
    assert all(command[1] == tmp_path / "infra/lock_smoke.py" for command in asked) and len(asked) == 2
