"""Shared fixtures: the surroundings of a Cairn process, and throwaway projects that are whole copies of this one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("flows", "tasks", "params", "dvc.yaml", ".dvcignore", ".gitignore", "pyproject.toml")


def _surroundings() -> None:
    """Tests must leave nothing outside the project folder; the state of this process goes where a run's would go."""
    from tasks.engine import start

    start.fix(ROOT, threads=1)


_surroundings()
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")  # a machine with other work to do is slow, which says nothing about the code


class Project:
    """A project of its own in a temporary folder: the code and params of this one, its own store, git and DVC."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT", "MLFLOW", "DVC", "CAIRN"))},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "GIT_AUTHOR_NAME": "test",
            "GIT_AUTHOR_EMAIL": "test@example.org",
            "GIT_COMMITTER_NAME": "test",
            "GIT_COMMITTER_EMAIL": "test@example.org",
        }
        self.environment["DVC_SITE_CACHE_DIR"] = str(folder / ".cairn/dvc")
        self.environment.pop("HF_HOME", None)
        self.environment.pop("TMPDIR", None)

    def run(self, *command: str, check: bool = True, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the project; with `check`, a failure shows what it printed."""
        answer = subprocess.run(
            command,
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if check and answer.returncode:
            raise AssertionError(f"{' '.join(command)} ended with {answer.returncode}:\n{answer.stdout}\n{answer.stderr}")
        return answer

    def cairn(self, *arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "flows.cli", *arguments, **more)  # type: ignore[arg-type]

    def dvc(self, *arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "dvc", *arguments, **more)  # type: ignore[arg-type]

    def git(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("git", *arguments)

    def replace(self, path: str, old: str, new: str) -> None:
        file = self.folder / path
        text = file.read_text()
        assert old in text, f"{old!r} is not in {path}"
        file.write_text(text.replace(old, new, 1))

    def cast(self, role: str, player: dict[str, object]) -> None:
        """Let another player play a role, one that has a line of its own in params/pipeline.yaml."""
        file = self.folder / "params/pipeline.yaml"
        lines = file.read_text().splitlines()
        (place,) = (number for number, line in enumerate(lines) if line.startswith(f"  {role}: {{"))
        lines[place] = f"  {role}: {json.dumps(player)}"
        file.write_text("\n".join([*lines, ""]))

    def identities(self) -> dict[str, str]:
        """stage -> identity as dvc.lock has it."""
        import yaml

        tree = yaml.safe_load((self.folder / "dvc.lock").read_text())
        return {name: body["outs"][0]["md5"] for name, body in tree["stages"].items()}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A fresh project with the smoke profile active, committed to git."""
    return make_project(tmp_path / "project")


def make_project(folder: Path, profile: str = "smoke") -> Project:
    """Copy this project's code and params into `folder` and put it under git and DVC."""
    folder.mkdir(parents=True)
    for name in COPIED:
        source = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, folder / name, ignore=ignore) if source.is_dir() else shutil.copy2(source, folder / name)
    shutil.copytree(ROOT / ".dvc", folder / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache", "config.local"))
    shutil.copy2(folder / "params" / "profiles" / f"{profile}.yaml", folder / "params" / "pipeline.yaml")
    (folder / "params" / "champion.yaml").write_text("champion: none\n")
    found = Project(folder)
    found.git("init", "-q", "-b", "main")
    found.git("add", "-A")
    found.git("commit", "-q", "-m", "start")
    return found


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prefect server on loopback for tests that start many processes; its URL."""
    yield from _serve(tmp_path_factory.mktemp("prefect"))


def _serve(home: Path) -> Iterator[str]:
    import socket
    import time
    import urllib.request

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    environment.pop("PREFECT_API_URL", None)
    server = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}/api"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=1).read()
                break
            except OSError:
                time.sleep(0.25)
        else:
            raise RuntimeError("the Prefect server did not start")
        yield url
    finally:
        server.terminate()
        server.wait(timeout=20)


Make = Callable[..., Project]
