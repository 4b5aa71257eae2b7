"""A full disk and a read-only one: one line, exit 1 or 2, no half-written artifact, and the next run goes on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Project, make_project

pytestmark = pytest.mark.reliability


def on_small_disk(project: Project, size: str, then: str = "") -> subprocess.CompletedProcess[str]:
    """Run the road up to filter with its state on a tmpfs of `size`, in a mount namespace of its own."""
    script = f"mount -t tmpfs -o size={size} tmpfs disk && {then} {sys.executable} -m flows.cli run --to filter"
    return project.run("unshare", "-rm", "sh", "-c", script, check=False, CAIRN_HOME=str(project.folder / "disk"))


@pytest.fixture
def disked(tmp_path: Path) -> Project:
    assert shutil.which("unshare"), "util-linux is needed for this test"
    project = make_project(tmp_path / "project")
    (project.folder / "disk").mkdir()
    return project


@pytest.mark.parametrize("size", ["3m", "4m", "6m"])
def test_a_full_disk(disked: Project, size: str) -> None:
    answer = on_small_disk(disked, size)
    assert answer.returncode == 1, answer.stdout + answer.stderr
    assert "Traceback" not in answer.stderr
    said = answer.stderr.lower()
    assert "no space left" in said or "disk is full" in said, answer.stderr
    assert disked.cairn("run", "--to", "filter").returncode == 0


def test_a_read_only_disk(disked: Project) -> None:
    answer = on_small_disk(disked, "64m", "mount -o remount,ro disk &&")
    assert answer.returncode == 2, answer.stderr
    assert "cannot be written" in answer.stderr
