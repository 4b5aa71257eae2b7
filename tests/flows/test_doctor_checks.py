"""What a project stands on, check by check: each fault is told with what mends it, and none keeps `cairn doctor` waiting."""

from __future__ import annotations

import http.server
import json
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import doctor, inherited_config
from flows.doctor import databases, installed, machine, remotes, runs, servers, surroundings
from flows.doctor.finding import Finding, Place, Severity, error, good, note, warning
from flows.doctor.time_box import within
from tasks.contract.params import BadInput
from tasks.engine import start
from tasks.engine.artifact import Store
from tasks.engine.journal import Journal
from tasks.engine.key import Key
from tasks.engine.locks import lock
from tasks.engine.shared_params import Role
from tests.engine.test_artifact import folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A project without params, whose user has no configuration of an own."""
    monkeypatch.setattr(start, "users_variables", dict)
    for name in ("GLOBAL", "SYSTEM"):
        monkeypatch.setenv(f"DVC_{name}_CONFIG_DIR", str(tmp_path / name))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prefect").mkdir()
    (tmp_path / "params").mkdir()
    return Place(tmp_path, Store(tmp_path / "state"))


def only(found: Iterator[Finding]) -> Finding:
    (one,) = found
    return one


# --- findings, time ---


def test_a_warning_and_an_error_have_a_remedy() -> None:
    for make in (warning, error):
        with pytest.raises(ValueError, match="without a remedy"):
            make("part", "text", "")
    assert str(error("disk", "full", "cairn gc")) == "disk       ERROR: full\n           -> cairn gc"
    assert str(note("disk", "fine")) == "disk       fine"


def test_a_check_that_hangs_holds_nobody_up(place: Place) -> None:
    def hangs(_: Place) -> Iterator[Finding]:
        yield good("x", "first")
        time.sleep(60)

    begun = time.monotonic()
    found = list(within("x", hangs, place, 0.2))
    assert time.monotonic() - begun < 5
    assert [one.severity for one in found] == [Severity.GOOD, Severity.WARNING] and "no answer within" in found[1].text


@pytest.mark.parametrize(
    ("raised", "part"),
    [
        (BadInput("write another"), "write another"),
        (OSError(28, "No space left on device", "/x"), "No space left on device: /x"),
        (KeyError("gone"), "this check failed: KeyError: 'gone'"),
    ],
)
def test_a_check_that_fails_is_a_finding(place: Place, raised: Exception, part: str) -> None:
    def fails(_: Place) -> Iterator[Finding]:
        raise raised
        yield

    found = only(within("x", fails, place))
    assert found.severity is Severity.ERROR and part in found.text and found.remedy


def test_params_that_cannot_be_used_end_no_other_check(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def look(name: str) -> Any:
        def find(_: Place) -> Iterator[Finding]:
            seen.append(name)
            yield warning(name, "see to it", "do")

        return find

    monkeypatch.setattr(doctor, "CHECKS", (doctor.Check("a", look("free")), doctor.Check("a", look("planned"), planned=True)))
    monkeypatch.setattr(doctor, "READING", (doctor.Check("a", look("bytes")),))
    monkeypatch.setattr(doctor, "RUNS", ())
    found = list(doctor.examine(Place(place.project, place.store, why="seed = x")))
    assert seen == ["free", "bytes"] and found[0].text == "seed = x" and doctor.exit_code(found) == 1
    seen.clear()
    assert [one.severity for one in doctor.examine(place, quick=True)][1:] == [Severity.WARNING] and seen == ["free"]
    assert doctor.exit_code([warning("a", "b", "c"), note("a", "b")]) == 0


# --- packages ---


def test_packages_are_compared_with_the_lock_that_was_installed(place: Place) -> None:
    (place.project / "pyproject.toml").write_text('[project]\nname = "x"\ndependencies = ["pytest<1", "no-such-package", "psutil"]\n')
    from importlib.metadata import version

    (place.project / "requirements.lock").write_text(f"# pinned\npytest=={version('pytest')}\npsutil==0.1\n")
    (place.project / "requirements-cuda.lock").write_text(f"pytest=={version('pytest')}\npsutil==0.1\nnvidia-nothing==1\n")
    found = list(installed.packages(place))
    assert [one.severity for one in found] == [Severity.ERROR, Severity.ERROR, Severity.WARNING]
    assert f"pytest is {version('pytest')}, and pyproject.toml wants <1" in found[0].text
    assert "no-such-package is not installed" in found[1].text
    assert f"not as requirements.lock says: psutil is {version('psutil')} and not 0.1" in found[2].text
    assert found[2].remedy.endswith("-m pip install --requirement requirements.lock")
    (place.project / "requirements.lock").write_text(f"pytest=={version('pytest')}\n")
    (place.project / "pyproject.toml").unlink()
    assert only(installed.packages(place)).severity is Severity.GOOD


# --- disk, GPU ---


def test_too_little_room_is_an_error_that_says_what_is_needed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    free = SimpleNamespace(free=2_000_000_000)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: free)
    monkeypatch.setattr(machine, "_needed", lambda _: (3_000_000_000, ["rl"]))
    with_plan = Place(place.project, place.store, plan=object())  # type: ignore[arg-type]
    first, last = machine.disks(with_plan)
    assert first.severity is Severity.ERROR and "2.0 GB are free" in first.text and "3.1 GB are needed" in first.text
    assert "cairn gc" in first.remedy and "rl" in last.text
    free.free = 5_000_000_000
    assert next(one.severity for one in machine.disks(with_plan)) is Severity.WARNING
    free.free = 9_000_000_000
    assert next(one.severity for one in machine.disks(with_plan)) is Severity.GOOD


def test_what_a_result_took_is_what_is_needed(place: Place, tmp_path: Path) -> None:
    identity = place.store.put(folder(tmp_path / "out", a="12345", b="12345", c="123"))
    key = Key({"stage": "sft"})
    place.store.record(key, identity, {})
    (place.state / "last").mkdir()
    (place.state / "last/sft.json").write_text(json.dumps({"key": key.digest, "parts": {}}))
    plan: Any = SimpleNamespace(experiment=False, store=place.store)
    assert machine._last_size(plan, "sft") == 8, "equal files are kept once"
    assert machine._last_size(plan, "rl") == 0


SMI = "| NVIDIA-SMI 550.54    Driver Version: 550.54    CUDA Version: {}     |"


@pytest.mark.parametrize(
    ("device", "build", "smi", "computes", "severity", "part"),
    [
        ("cpu", "", "", "", Severity.GOOD, "built without CUDA; no driver"),
        ("cpu", "13.0", SMI.format("13.1"), "", Severity.GOOD, "driver 550.54 (CUDA up to 13.1)"),
        ("cuda", "", "", "", Severity.ERROR, "built without CUDA"),
        ("cuda", "13.0", SMI.format("12.4"), "", Severity.ERROR, "too old"),
        ("cuda", "13.0", SMI.format("13.0"), "ok H200", Severity.GOOD, "H200 computes"),
        ("cuda", "13.0", SMI.format("13.0"), "RuntimeError: no kernel", Severity.ERROR, "no kernel"),
    ],
)
def test_the_gpu(
    place: Place, monkeypatch: pytest.MonkeyPatch, device: str, build: str, smi: str, computes: str, severity: Severity, part: str
) -> None:
    (place.project / "params/pipeline.yaml").write_text(f"device: {device}\n")
    monkeypatch.setattr(machine.shutil, "which", lambda _: "nvidia-smi" if smi else None)
    monkeypatch.setattr(machine, "_torch_cuda", lambda: build)
    monkeypatch.setattr(machine, "_ask", lambda command: smi if command == ["nvidia-smi"] else computes)
    if build:
        monkeypatch.setattr(machine, "check_device", lambda *_: None)
    found = only(machine.gpu(place))
    assert found.severity is severity and part in found.text, found


def test_torch_says_for_which_cuda_it_is_built_and_a_program_its_last_words() -> None:
    assert machine._torch_cuda() == "" or machine._torch_cuda()[0].isdigit()
    assert machine._ask(["sh", "-c", "echo hello"]) == "hello"
    assert machine._ask(["sh", "-c", "echo why >&2; exit 3"]) == "why"


# --- servers ---


@contextmanager
def answering(status: int, body: Any) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


MODELS = {"data": [{"id": "small", "root": "/models/b"}]}


@pytest.mark.parametrize(
    ("status", "body", "model", "noted", "severity", "part"),
    [
        (200, MODELS, "small", None, Severity.GOOD, "it was not asked yet"),
        (200, MODELS, "small", {"root": "/models/b"}, Severity.GOOD, "answers"),
        (200, MODELS, "small", {"root": "/models/a"}, Severity.ERROR, 'has "/models/b" behind that name now'),
        (200, MODELS, "large", None, Severity.ERROR, "no such model; it has: small"),
        (200, {"hello": 1}, "small", None, Severity.ERROR, "not with a list of models"),
        (401, {}, "small", None, Severity.ERROR, "its key is wrong or missing"),
        (500, {}, "small", None, Severity.ERROR, "it answers 500"),
    ],
)
def test_a_model_server(status: int, body: Any, model: str, noted: Any, severity: Severity, part: str) -> None:
    with answering(status, body) as url:
        role = Role(backend="openai_compatible", base_url=url, model=model)
        found = servers._model_server("judge", "params: roles.judge", role, noted)
    assert found.severity is severity and part in found.text and (found.remedy or severity is Severity.GOOD)


def test_a_model_server_that_is_gone_or_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    role = Role(backend="openai_compatible", base_url="http://127.0.0.1:9/v1", model="small")
    found = servers._model_server("judge", "params: roles.judge", role, None)
    assert found.severity is Severity.ERROR and "nobody answers there" in found.text and "roles.judge.base_url" in found.remedy
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    keyed = servers._model_server("judge", "params: roles.judge", role.model_copy(update={"key_env": "NO_SUCH_KEY"}), None)
    assert keyed.severity is Severity.ERROR and keyed.remedy == "export NO_SUCH_KEY=..."


def test_named_servers_say_their_version_or_why_not(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no server is named" in only(servers.prefect(place)).text and "no server is named" in only(servers.mlflow(place)).text
    monkeypatch.setattr(
        start, "users_variables", lambda: {"PREFECT_API_URL": "http://127.0.0.1:9/api", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    )
    for find in (servers.prefect, servers.mlflow):
        found = only(find(place))
        assert found.severity is Severity.ERROR and "(environment): nobody answers there" in found.text and found.remedy
    with answering(200, "3.1.0") as url:
        monkeypatch.setattr(start, "users_variables", lambda: {"PREFECT_API_URL": url})
        assert only(servers.prefect(place)).text == f"Prefect 3.1.0 answers at {url} (environment)"


def test_another_server_at_the_address_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(200, {"login": "please"}) as url:
        monkeypatch.setattr(start, "users_variables", lambda: {"PREFECT_API_URL": url, "MLFLOW_TRACKING_URI": url})
        for find, product in ((servers.prefect, "a Prefect server's version"), (servers.mlflow, "an MLflow server's answer")):
            found = only(find(place))
            assert found.severity is Severity.ERROR and f"not {product}" in found.text and found.remedy
        assert not list(servers.deployments(place)), "said once"


def test_deployments_that_run_in_no_project(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (place.project / "params/pipeline.yaml").write_text("device: cpu\n")

    def deployed(name: str, folder: str, entrypoint: str = "flows.pipeline:pipeline") -> dict[str, Any]:
        steps = [{"prefect.deployments.steps.set_working_directory": {"directory": folder}}]
        return {"name": name, "entrypoint": entrypoint, "pull_steps": steps}

    mine, gone = deployed("smoke", str(place.project)), deployed("old", "/nowhere")
    unset, theirs = deployed("nightly", "{{ $CAIRN_PROJECT }}"), deployed("foreign", "", "etl.py:main")
    monkeypatch.delenv("CAIRN_PROJECT", raising=False)
    with answering(200, [mine, gone, unset, theirs]) as url:
        monkeypatch.setattr(start, "users_variables", lambda: {"PREFECT_API_URL": url})
        found = list(servers.deployments(place))
        monkeypatch.setenv("CAIRN_PROJECT", str(place.project))
        assert found[:2] == list(servers.deployments(place))
    assert [one.severity for one in found] == [Severity.WARNING, Severity.WARNING, Severity.NOTE]
    assert "deployment old runs in /nowhere, which is no project here" in found[0].text
    assert "deployment nightly runs in no folder: CAIRN_PROJECT was not set" in found[1].text
    assert found[2].text.startswith("1 deployments at Prefect run in this project") and "CAIRN_PROJECT=" in found[2].remedy


# --- databases ---


def database(path: Path, version: str) -> Path:
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE alembic_version (version_num TEXT)")
        made.execute("INSERT INTO alembic_version VALUES (?)", (version,))
        made.commit()
    return path


@pytest.mark.parametrize(("library", "file"), [("MLflow", "state/mlflow.db"), ("Prefect", "prefect/prefect.db")])
def test_the_schema_of_a_database(place: Place, library: str, file: str) -> None:
    known = databases.of_library(library, "sqlite")
    assert len(known.known) > 30 and len(known.newest) == 1, "the installed library's own migrations"
    path = place.project / file
    old = next(iter(known.known - known.newest))
    for version, severity, part in (
        (next(iter(known.newest)), Severity.GOOD, "the schema of the version that is installed"),
        (old, Severity.ERROR if library == "MLflow" else Severity.WARNING, f"the schema {old} of an older {library}"),
        ("fffffff", Severity.ERROR, "a newer one wrote it"),
    ):
        path.unlink(missing_ok=True)
        database(path, version)
        (found,) = [one for one in databases.databases(place) if one.text.startswith(library) and path.name in one.text]
        assert found.severity is severity and part in found.text, found


def test_a_database_that_is_damaged_or_locked(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "PATIENCE", 0.1)
    path = place.state / "mlflow.db"
    path.write_bytes(b"rubbish" * 1000)
    (found,) = [one for one in databases.databases(place) if one.severity is Severity.ERROR]
    assert "is no SQLite database, or a damaged one" in found.text and f"mv {path} {path}.broken" in found.remedy
    path.unlink()
    database(path, "x")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        (found,) = [one for one in databases.databases(place) if one.severity is Severity.ERROR]
    assert "another process has locked" in found.text and f"fuser {path}" in found.remedy


def test_a_postgres_that_does_not_answer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg://me:hidden@127.0.0.1:9/runs")
    (found,) = [one for one in databases.databases(place) if one.severity is Severity.ERROR]
    assert "postgresql+psycopg://me:...@127.0.0.1:9/runs" in found.text and "hidden" not in str(found)
    assert found.remedy == "pg_isready --host 127.0.0.1 --port 9"


# --- the remote ---


def configure(place: Place, text: str) -> None:
    (place.project / ".dvc").mkdir(exist_ok=True)
    (place.project / ".dvc/config").write_text(text)


def test_no_remote_and_one_that_is_not_the_default(place: Place) -> None:
    assert only(remotes.remote(place)).text.startswith("no DVC remote:")
    configure(place, "['remote \"shelf\"']\n    url = ../shelf\n")
    assert only(remotes.remote(place)).remedy == "dvc remote default shelf"


def test_a_remote_is_asked_with_a_limit(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(place, "[core]\n    remote = shelf\n['remote \"shelf\"']\n    url = s3://me:hidden@stones/cairn\n")
    monkeypatch.setattr(remotes, "_ASK", "import time; time.sleep(60)")
    assert remotes.ask(place.project, (), 0.3).why == "no answer within 0 s"
    monkeypatch.setattr(remotes, "_ASK", "raise SystemExit('Unable to locate credentials')")
    found = only(remotes.remote(place))
    assert found.severity is Severity.ERROR and "Unable to locate credentials" in found.text and "hidden" not in str(found)
    monkeypatch.setattr(remotes, "_ASK", "import json, sys; print(json.dumps(json.load(sys.stdin)[:1] or True))")
    assert only(remotes.remote(place)).severity is Severity.GOOD
    assert remotes.ask(place.project, ("b", "a"), 9).there == {"a"}


# --- runs ---


def test_a_run_that_is_shown_as_running_and_is_gone(place: Place) -> None:
    with closing(sqlite3.connect(place.state / "mlflow.db")) as made:
        made.execute("CREATE TABLE runs (run_uuid, name, status, lifecycle_stage)")
        made.execute("CREATE TABLE tags (key, value, run_uuid)")
        for run, status, key, parent in (
            ("r1", "RUNNING", "k" * 64, None),
            ("r2", "RUNNING", None, "r1"),
            ("r3", "FINISHED", "x", None),
            ("r4", "RUNNING", "z" * 64, None),
        ):
            made.execute("INSERT INTO runs VALUES (?, ?, ?, 'active')", (run, f"name {run}", status))
            if key:
                made.execute("INSERT INTO tags VALUES ('cairn.run', ?, ?)", (key, run))
            if parent:
                made.execute("INSERT INTO tags VALUES ('mlflow.parentRunId', ?, ?)", (parent, run))
        made.commit()
    with closing(sqlite3.connect(place.project / "prefect/prefect.db")) as made:
        made.execute("CREATE TABLE flow_run (id, name, state_type, start_time, created)")
        rows = [
            ("f1", "RUNNING", "2026-01-01 00:00:00"),
            ("f2", "RUNNING", "2026-01-01 00:00:00"),
            ("f3", "COMPLETED", "2026-01-01 00:00:00"),
        ]
        made.executemany("INSERT INTO flow_run VALUES (?, 'a', ?, ?, NULL)", rows)
        made.execute("INSERT INTO flow_run VALUES ('f4', 'a', 'RUNNING', datetime('now'), NULL)")
        made.commit()
    writing = Journal(place.state, "k" * 64, {"run": "k" * 64, "prefect": {"flow_run": "f1"}})
    found = list(runs.shown_as_running(place))
    assert [one.text.split()[3] for one in found] == ["r4", "run"] and "flow run f2" in found[1].text
    assert "set_terminated" in found[0].remedy and "r4" in found[0].remedy and found[1].remedy.endswith("flow-run delete f2")
    writing.close(delivered=True)
    assert len(list(runs.shown_as_running(place))) == 5, "its process is gone: the run, its stage, and the flow run"


def test_locks_that_are_held_and_those_that_killed_processes_left(place: Place) -> None:
    (place.state / "locks").mkdir(parents=True)
    (place.state / "locks/key-dead").write_text(json.dumps({"process": 1, "host": "here"}))
    (place.state / "work/alive/scratch").mkdir(parents=True)
    (place.state / "work/dead/scratch").mkdir(parents=True)
    with lock(place.state, "key-alive"):
        text = "\n".join(map(str, [*runs.locks(place), *runs.work(place)]))
    assert "the same result, which another run is making: process" in text and "1 locks were held by processes that were killed" in text
    assert "1 interrupted results" in text, "the other one goes on"


# --- inherited settings ---


def test_settings_of_git_and_dvc_outside_of_the_project(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=place.project, check=True)
    (tmp_path / "gitconfig").write_text("[core]\n\tautocrlf = true\n[user]\n\tname = me\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    (tmp_path / "GLOBAL").mkdir()
    (tmp_path / "GLOBAL/config").write_text("[core]\n    autostage = true\n    analytics = false\n")
    one, other = inherited_config.of_dvc_and_git(place.project)
    assert (one.name, one.origin) == ("dvc core.autostage", f"the file {tmp_path / 'GLOBAL/config'}")
    assert (other.name, other.value, other.origin) == ("git core.autocrlf", "true", f"the file {tmp_path / 'gitconfig'}")
    found = list(surroundings.settings(place))
    assert [one.severity for one in found] == [Severity.NOTE, Severity.WARNING] and "core.autocrlf false" in found[1].remedy


def test_settings_of_a_repository_around_the_project(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GLOBAL", "SYSTEM"):
        monkeypatch.setenv(f"GIT_CONFIG_{name}", "/dev/null")
    subprocess.run(["git", "init", "-q"], cwd=place.project, check=True)
    subprocess.run(["git", "config", "commit.gpgsign", "true"], cwd=place.project, check=True)
    inner = folder(place.project / "inner", note="a project in a folder of a repository")
    assert not list(inherited_config.of_dvc_and_git(place.project)), "its own"
    (one,) = inherited_config.of_dvc_and_git(inner)
    assert (one.name, one.origin) == ("git commit.gpgsign", f"the repository {place.project}, in which this project lies")
