"""Kill the smoke road at twenty random moments; it goes on each time, and ends in the identities of an undisturbed run.

`CAIRN_KILLS` sets another number. Each kill takes the whole process group: nothing gets a chance to clean up.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import Project, make_project

pytestmark = [pytest.mark.reliability, pytest.mark.timeout(5400)]


def test_random_kills_end_in_the_same_identities(tmp_path: Path) -> None:
    calm = make_project(tmp_path / "calm")
    start = time.monotonic()
    calm.cairn("run", timeout=1200)
    length = time.monotonic() - start

    wild, rng = make_project(tmp_path / "wild"), random.Random(0)
    left = int(os.environ.get("CAIRN_KILLS", "20"))
    for kill in range(left):
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "run"],
            cwd=wild.folder, env=wild.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            # The first seconds are imports: spread the kills over what is left of the road after them.
            process.wait(timeout=rng.uniform(3, 3 + length * 0.5))
            done = True
        except subprocess.TimeoutExpired:
            done = False
        if done:
            assert process.returncode == 0, f"run {kill} failed by itself"
            _forget_one_stage(wild, rng)
            continue
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    wild.cairn("run", timeout=1200)
    assert wild.identities() == calm.identities()
    assert wild.dvc("status").stdout.strip() == "Data and pipelines are up to date."


def _forget_one_stage(project: Project, rng: random.Random) -> None:
    """The road is finished but kills are left: forget a third of it, so that there is something to kill."""
    keys = sorted((project.folder / ".cairn/keys").glob("*.json"))
    for path in rng.sample(keys, k=max(1, len(keys) // 3)):
        path.unlink()
    (project.folder / "dvc.lock").unlink(missing_ok=True)
