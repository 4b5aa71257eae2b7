"""Shared fixtures: the surroundings of a Cairn process, and throwaway projects that are whole copies of this one.

Which to take: for a question that a function answers, call it here (no fixture; milliseconds). For one command, `project` (a fresh
copy, tens of milliseconds) and `project.cairn(...)` or `project.dvc(...)`, which fork from a process that has the libraries already
(0.2 to 2 s; see tests/warm.py); several refusals share one `make_project` of module scope. For what a run leaves, the session's
`road` (in group "road", never written to) or a copy of it by `copied(road, folder)`; for the road up to `filter`, `after` of
tests/flows/test_two_drivers.py. A run that computes gets `prefect_server` and `migrated`, so that it need not make databases.
"""

from __future__ import annotations

import compileall
import fcntl
import functools
import gc
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.warm import WARM

pytest_plugins = ["tests.road"]
ROOT = Path(__file__).resolve().parent.parent
COPIED = ("flows", "tasks", "params", "dvc.yaml", ".dvcignore", ".gitignore", "pyproject.toml")


def _surroundings() -> None:
    """Tests must leave nothing outside the project folder; the state of this process goes where a run's would go. A `make` that a test
    starts takes no variables (TESTS=...) of the `make` that runs the tests."""
    from tasks.engine import start

    start.fix(ROOT, threads=1)
    for name in ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL"):
        os.environ.pop(name, None)


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

    def run(
        self, *command: str, check: bool = True, timeout: float = 300, cold: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the project; with `check`, a failure shows what it printed. cold: Python begins anew, as for a user."""
        given = {**self.environment, **environment}
        if command[0] == sys.executable and not cold:
            answer = WARM.run(command[1:], self.folder, {**given, "PATH": f"{WARM.folder}{os.pathsep}{given['PATH']}"}, timeout)
        else:
            answer = subprocess.run(
                command,
                cwd=self.folder,
                env=given,
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
    """Copy this project's code and params into `folder`; it is under git and DVC."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", str(_template()), str(folder)], check=True)
    found = Project(folder)
    if profile != "smoke":
        shutil.copy2(folder / "params" / "profiles" / f"{profile}.yaml", folder / "params" / "pipeline.yaml")
        found.git("commit", "-q", "--amend", "--no-edit", "-a")
    return found


@functools.cache
def _template() -> Path:
    """The project that others are copies of, with the smoke profile, committed. Its modules are compiled: no process of a copy does it."""
    folder = Path(_kept.name) / "template"
    folder.mkdir()
    for name in COPIED:
        source = ROOT / name
        shutil.copytree(source, folder / name) if source.is_dir() else shutil.copy2(source, folder / name)
    shutil.copytree(ROOT / ".dvc", folder / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache", "config.local"))
    shutil.copy2(folder / "params" / "profiles" / "smoke.yaml", folder / "params" / "pipeline.yaml")
    (folder / "params" / "champion.yaml").write_text("champion: none\n")
    found = Project(folder)
    found.git("init", "-q", "-b", "main")
    found.git("add", "-A")
    found.git("commit", "-q", "-m", "start")
    found.git("repack", "-adq")  # one file is quicker to copy than a thousand
    for code in ("flows", "tasks"):
        compileall.compile_dir(folder / code, quiet=1)
    return folder


def copied(project: Project, folder: Path) -> Project:
    """A copy of a project with all that it has computed, which may be written to."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", "--no-preserve=links", str(project.folder), str(folder)], check=True)
    copy = Project(folder)
    copy.environment |= {name: project.environment[name] for name in ("PREFECT_API_URL", "HOME") if name in project.environment}
    return copy


_kept = tempfile.TemporaryDirectory(prefix="template-", ignore_cleanup_errors=True)


LONGEST = (
    *("road", "matrix", "served", "terminal", "worlds/test_adapter_mcp", "ground", "infra/test_gpu_proof"),
    *("recipes/test_apigen_mt", "generate/test_apigen_mt", "flows/test_world_commands", "worlds/test_checking", "rl/test_hooks"),
    *("recipes/test_domain_adaptation", "recipes/test_breadcrumbs", "recipes/test_lt_sft", "sft/test_sft", "sft/test_hooks"),
    *("flows/test_upgrade", "flows/test_export", "flows/test_bad_input", "generate/test_resume", "generate/test_traps_bench"),
    *("players/test_calls", "players/test_stage", "worlds/test_fuzz", "worlds/test_state", "engine/test_edits", "engine/test_track"),
)
"""Groups of tests, those that take longest first: workers that take the long ones first end together. A group is what tests were marked
with, else their file: its fixtures of module scope are made once."""


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    """Called by pytest-xdist for each worker that it starts."""
    WARM.begin("transformers.trainer", "mlflow.tracking", "prefect.flow_engine", "prefect.client.orchestration", "dvc.repo.reproduce")
    node.workerinput["warm"] = str(WARM.folder)  # type: ignore[attr-defined]


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        WARM.join(Path(config.workerinput["warm"]))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not hasattr(config, "workerinput"):
        return
    places = {group: place for place, group in enumerate(LONGEST)}
    groups = {}
    for item in items:
        marker = item.get_closest_marker("xdist_group")
        groups[item] = marker.args[0] if marker else str(item.path.relative_to(ROOT / "tests").with_suffix(""))
        item.add_marker(pytest.mark.xdist_group(groups[item]))
    items.sort(key=lambda item: places.get(groups[item], len(places)))


def pytest_collection_finish() -> None:
    settle()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    settle()


def settle() -> None:
    """Let the garbage collector pass over libraries once they are loaded: whoever trains has it look at everything twice, which in a
    process with as much in it as this one takes most of a second."""
    if len(sys.modules) > settle.loaded + 50:  # type: ignore[attr-defined]
        settle.loaded = len(sys.modules)  # type: ignore[attr-defined]
        gc.collect()
        gc.freeze()


settle.loaded = 0  # type: ignore[attr-defined]


def pytest_sessionfinish() -> None:
    WARM.close()
    _kept.cleanup()


MIGRATE = """
import sys
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
SqlAlchemyStore(f"sqlite:///{sys.argv[1]}/mlflow.db", sys.argv[1])
"""


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all test workers of a session share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """While the block runs, no other worker is in such a block."""
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def empty_store(common: Path) -> Path:
    """An empty database of MLflow's, to be copied: its tables take seconds to make."""
    folder = common / "migrated"
    folder.mkdir(exist_ok=True)
    with alone(folder / "lock"):
        if not (folder / "done").exists():
            Project(folder).run(sys.executable, "-c", MIGRATE, str(folder))
            (folder / "done").touch()
    return folder / "mlflow.db"


@pytest.fixture
def mlflow_uri(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty store of the test's own, in its folder; it is this process's, whatever a test before has left in it."""
    shutil.copy2(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address := f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", None)
    return address


@pytest.fixture(scope="session")
def migrated(empty_store: Path) -> Callable[[Project], Project]:
    """Gives a project an empty database of MLflow's."""

    def give(project: Project) -> Project:
        (project.folder / ".cairn").mkdir(exist_ok=True)
        shutil.copy2(empty_store, project.folder / ".cairn/mlflow.db")
        return project

    return give


@pytest.fixture(scope="session")
def prefect_server(common: Path) -> Iterator[str]:
    """A Prefect server on loopback for tests that start many processes; its URL. The first worker that needs it starts it, the last
    that has needed it ends it."""
    home = common / "prefect"
    home.mkdir(exist_ok=True)
    users, about = home / "users", home / "server.json"
    with alone(home / "lock"):
        if not users.exists():
            about.write_text(json.dumps(_serve(home)))
        users.write_text(users.read_text() + "+" if users.exists() else "+")
    server = json.loads(about.read_text())
    yield server["url"]
    with alone(home / "lock"):
        users.write_text(users.read_text()[1:])
        if not users.read_text():
            users.unlink()
            os.kill(server["pid"], signal.SIGTERM)


def _serve(home: Path) -> dict[str, str | int]:
    """Start a server and wait until it answers: its URL and process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    environment.pop("PREFECT_API_URL", None)
    server = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-services"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}/api"
    for _ in range(720):  # minutes, where the machine has much else to do
        try:
            urllib.request.urlopen(f"{url}/health", timeout=1).read()
            return {"url": url, "pid": server.pid}
        except OSError:
            time.sleep(0.25)
    server.kill()
    raise RuntimeError("the Prefect server did not start")
