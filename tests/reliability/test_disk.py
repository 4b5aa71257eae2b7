"""A disk that is full, that fills up under a run, and one that cannot be written: words instead of a traceback, and a run that goes on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Project, make_project

pytestmark = pytest.mark.reliability

ROAD = f"{sys.executable} -m flows.cli run --to filter"
FILL = '(while [ -z "$(ls disk/keys 2>/dev/null)" ]; do sleep 0.1; done; dd if=/dev/zero of=disk/filler bs=1M 2>/dev/null)'


@pytest.fixture
def disked(tmp_path: Path) -> Project:
    assert shutil.which("unshare"), "util-linux is needed for this test"
    project = make_project(tmp_path / "project")
    (project.folder / "disk").mkdir()
    project.dvc("config", "--local", "cache.dir", str(project.folder / "disk/store"))
    return project


def on_small_disk(project: Project, size: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script with the state root on a tmpfs of `size`, in a mount namespace of its own."""
    whole = f"mount -t tmpfs -o size={size} tmpfs disk && {script}"
    return project.run("unshare", "-rm", "sh", "-c", whole, check=False, timeout=550, CAIRN_HOME=str(project.folder / "disk"))


def test_a_full_disk_is_refused_before_anything_starts(disked: Project) -> None:
    answer = on_small_disk(disked, "20m", ROAD)
    assert answer.returncode == 2, answer.stderr
    assert "MB are free, 100 MB are needed" in answer.stderr


def test_a_read_only_disk_is_refused(disked: Project) -> None:
    answer = on_small_disk(disked, "64m", f"mount -o remount,ro disk && {ROAD}")
    assert answer.returncode == 2, answer.stderr
    assert "cannot be written" in answer.stderr


def test_a_disk_that_fills_up_under_a_run(disked: Project) -> None:
    """The disk is filled once the first stage is recorded: the run ends with 1 and no traceback; with room again, it goes on."""
    script = f"{{ {FILL} & }}; {ROAD}; echo first=$?; rm disk/filler; {ROAD}; echo second=$?"
    answer = on_small_disk(disked, "120m", script)
    assert "first=1" in answer.stdout, answer.stdout + answer.stderr
    assert "second=0" in answer.stdout, answer.stdout + answer.stderr
    before = answer.stderr.split("worlds    cached")[0]
    assert "Traceback" not in before and "no space left" in before.lower(), before
    assert "worlds    cached" in answer.stderr, "what was finished before the disk was full is not computed again"
