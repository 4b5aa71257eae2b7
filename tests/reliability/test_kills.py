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

from infra.stub import running
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


def test_kills_of_a_stage_that_asks_a_server(tmp_path: Path) -> None:
    """Generate, its judges behind a server that takes 0.3 s, killed at random moments once it has begun to ask: the same identity as
    without kills, and what is paid twice is at most what may be in flight at each kill (the server's own count of open calls lacks the
    answers that were on their way)."""
    flight, kills, rng = 4, int(os.environ.get("CAIRN_KILLS", "20")), random.Random(0)
    asked = ("run", "--to", "generate")
    with running(latency=0.3) as stub:
        role = {"backend": "openai_compatible", "base_url": stub.url, "model": "stub", "max_in_flight": flight}
        calm, wild = make_project(tmp_path / "calm"), make_project(tmp_path / "wild")
        for project in (calm, wild):
            project.cast("judge", role)
        calm.cairn(*asked)
        whole = stub.counts()["paid"]
        stub.turn()
        for _ in range(kills):
            process = subprocess.Popen(
                [sys.executable, "-m", "flows.cli", *asked],
                cwd=wild.folder, env=wild.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            while not stub.counts()["open"] and process.poll() is None:
                time.sleep(0.02)
            time.sleep(rng.uniform(0, 0.6))
            assert process.poll() is None, "it ended before it was killed: take more problems"
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            while stub.counts()["open"]:  # the server answers them all the same
                time.sleep(0.02)
        wild.cairn(*asked)
        counts = stub.counts()
    assert wild.identities() == calm.identities()
    assert counts["twice"] <= kills * flight and counts["paid"] == whole + counts["twice"], (counts, whole)


def _forget_one_stage(project: Project, rng: random.Random) -> None:
    """The road is finished but kills are left: forget a third of it, so that there is something to kill."""
    keys = sorted((project.folder / ".cairn/keys").glob("*.json"))
    for path in rng.sample(keys, k=max(1, len(keys) // 3)):
        path.unlink()
    (project.folder / "dvc.lock").unlink(missing_ok=True)
