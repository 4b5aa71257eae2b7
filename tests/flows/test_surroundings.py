"""Inherited settings are named with origin and effect; servers that they name are asked before anything starts; setup in any folder."""

from __future__ import annotations

import http.server
import json
import os
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from flows import inherited, server, server_checks, setup
from flows.dvc_command import busy
from flows.inherited import Setting
from tasks.contract.params import BadInput
from tasks.engine import hashes, start
from tests.conftest import ROOT, Project, make_project


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and an environment in which nothing is set."""
    monkeypatch.chdir(tmp_path)
    for name in ("PREFECT_PROFILE", "PREFECT_PROFILES_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(start, "users_variables", dict)
    return tmp_path


def test_nothing_is_inherited(here: Path) -> None:
    assert inherited.everything() == [] and inherited.of_prefect("PREFECT_API_URL") is None


def test_every_place_where_prefect_looks_is_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the last that Prefect heeds to the first."""
    url = "PREFECT_API_URL"

    def found() -> tuple[str, str]:
        one = inherited.of_prefect(url)
        assert one is not None and one.moves
        return one.value, one.origin

    (here / "home").mkdir()
    (here / "home/profiles.toml").write_text('active = "work"\n[profiles.work]\nPREFECT_API_URL = "http://profile"\n')
    assert found() == ("http://profile", f"Prefect's profile 'work' in {here / 'home/profiles.toml'}")
    (here / "pyproject.toml").write_text('[tool.prefect.api]\nurl = "http://pyproject"\n')
    assert found() == ("http://pyproject", f"the file {here / 'pyproject.toml'}, which Prefect reads")
    (here / "prefect.toml").write_text('[api]\nurl = "http://toml"\n')
    assert found() == ("http://toml", f"the file {here / 'prefect.toml'}, which Prefect reads")
    (here / ".env").write_text("PREFECT_API_URL=http://dotenv\nOTHER=1\n")
    assert found() == ("http://dotenv", f"the file {here / '.env'}, which Prefect reads")
    monkeypatch.setattr(start, "users_variables", lambda: {"prefect_api_url": "http://variable"})
    assert found() == ("http://variable", "environment")
    assert [one.name for one in inherited.moving()] == [url], "of a setting that is set five times one line"
    assert len(inherited.everything()) == 5

    from prefect.settings.models.api import APISettings

    monkeypatch.setenv("prefect_api_url", "http://variable")
    assert APISettings().url == "http://variable"
    monkeypatch.delenv("prefect_api_url")
    for file in (".env", "prefect.toml", "pyproject.toml"):
        monkeypatch.setattr(start, "users_variables", dict)
        assert APISettings().url == found()[0], "as Prefect itself sees it"
        (here / file).unlink()


def test_a_file_that_prefect_cannot_read_is_named(here: Path) -> None:
    (here / "prefect.toml").write_text("[api\n")
    with pytest.raises(BadInput, match=r"prefect.toml: Prefect reads this file, and it is not valid TOML"):
        inherited.everything()


def test_secrets_are_not_shown(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "MLFLOW_TRACKING_URI": "postgresql://me:hidden@host/db",
        "PREFECT_API_KEY": "hidden",
        "HF_TOKEN": "hidden",
        "UNRELATED": "x",
    }
    monkeypatch.setattr(start, "users_variables", lambda: given)
    said = "\n".join(map(str, inherited.everything()))
    assert "hidden" not in said and "UNRELATED" not in said
    assert "MLFLOW_TRACKING_URI=postgresql://me:...@host/db (environment): runs and models are recorded there" in said


Answer = tuple[int, str, str]


@contextmanager
def answer_params(**paths: Answer) -> Iterator[str]:
    """An HTTP server; paths: last part of a path -> (status, type, body); anything else is a login page."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.partition("?")[0].rpartition("/")[2].replace("-", "_")
            status, kind, body = paths.get(name, (200, "text/html", "<html>Log in</html>"))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def prefect(url: str) -> None:
    server_checks.prefect(Setting("PREFECT_API_URL", url, "the file /x/.env", ""))


def mlflow(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "users_variables", lambda: {"MLFLOW_TRACKING_URI": url})
    server_checks.mlflow()


NONE = json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"})


def test_a_server_of_the_right_kind_is_used(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with answer_params(version=(200, "application/json", '"3.1.0"')) as url:
        prefect(f"{url}/api")
    with answer_params(get_by_name=(404, "application/json", NONE), version=(200, "text/plain", "3.0.1")) as url:
        mlflow(url, monkeypatch)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((200, "text/html", "<html>"), r"answers 200 with text/html, not a Prefect server's version \(does the URL end in /api\?\)"),
        ((401, "application/json", "{}"), "answers 401: set PREFECT_API_KEY"),
        ((200, "application/json", '"2.20.1"'), "it is Prefect 2.20.1, and this project speaks with Prefect 3"),
        ((500, "text/plain", "oops"), "answers 500 with text/plain"),
    ],
)
def test_something_else_at_prefects_url(here: Path, answer: Answer, message: str) -> None:
    with answer_params(version=answer) as url, pytest.raises(BadInput, match=message) as refused:
        prefect(f"{url}/api")
    assert "(the file /x/.env)" in str(refused.value) and "without this setting a run starts" in str(refused.value)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({}, "answers 200 with text/html, not an MLflow server's answer"),
        ({"get_by_name": (403, "text/plain", "")}, "answers 403: set MLFLOW_TRACKING_TOKEN"),
        ({"get_by_name": (404, "application/json", NONE), "version": (200, "text/plain", "1.30.0")}, "it is MLflow 1.30.0"),
    ],
)
def test_something_else_at_mlflows_uri(here: Path, monkeypatch: pytest.MonkeyPatch, answers: dict[str, Answer], message: str) -> None:
    with answer_params(**answers) as url, pytest.raises(BadInput, match=message) as refused:
        mlflow(url, monkeypatch)
    assert "`unset MLFLOW_TRACKING_URI`" in str(refused.value)


def test_nobody_there_and_nobody_who_answers(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed port, a database's closed port, an address that is none, a server that takes the call and is silent."""
    for url in ("http://127.0.0.1:9", "postgresql://me:word@127.0.0.1:9/db"):
        with pytest.raises(BadInput, match="nobody answers there"):
            mlflow(url, monkeypatch)
    for url in ("http://", "localhost:4200", "http://x:99999/api"):
        with pytest.raises(BadInput, match="this is no URL"):
            prefect(url)
    assert server_checks.PATIENCE < 10
    monkeypatch.setattr(server_checks, "PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(BadInput, match=r"no answer within|timed out"):
            prefect(f"http://127.0.0.1:{silent.getsockname()[1]}/api")
        assert time.monotonic() - begun < 2
        with pytest.raises(
            BadInput, match=r"MLFLOW_TRACKING_URI=http://127\.0\.0\.1:\d+ \(environment\): (no answer within|.*timed out)"
        ):
            mlflow(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        assert time.monotonic() - begun < 3


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """While the block runs, another connection has an SQLite file for itself."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("CREATE TABLE IF NOT EXISTS something (x)")
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def test_an_address_where_mlflow_can_keep_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told before anything starts, not as a loss after hours; nothing is made there."""
    (here / "text.db").write_text("no database " * 100)
    for uri, message in {
        "sqlite://": "it names no file",
        f"sqlite:///{here}/no/mlflow.db": f"there is no folder {here}/no in which this user may write",
        f"sqlite:///{here}/text.db": r".*text\.db is no SQLite database, or a damaged one \(file is not a database\)",
        f"{here}/mlruns": "nobody answers there .*maintenance mode",
        "bogus://x": "nobody answers there .*bogus",
    }.items():
        with pytest.raises(BadInput, match=rf"MLFLOW_TRACKING_URI=.* \(environment\): {message}"):
            mlflow(uri, monkeypatch)
    assert sorted(path.name for path in here.iterdir()) == ["text.db"]
    mlflow(f"sqlite:///{here}/new.db", monkeypatch)


def test_a_database_of_mlflows_that_another_process_locks(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inherited, or the state root's own."""
    monkeypatch.setattr(server_checks, "PATIENCE", 0.05)
    with locked(here / "mlflow.db"):
        with pytest.raises(BadInput, match=rf"\(environment\): another process has locked {here}/mlflow.db for more than"):
            mlflow(f"sqlite:///{here}/mlflow.db", monkeypatch)
        monkeypatch.setattr(start, "users_variables", dict)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here}/mlflow.db")
        with pytest.raises(
            BadInput, match=r"MLflow's database cannot be used: another process has locked .*try again when that process"
        ):
            server_checks.mlflow()
    server_checks.mlflow()


def test_prefects_own_database_that_another_process_locks(here: Path) -> None:
    """Its server ends then without a word."""
    (here / "home").mkdir()
    ended = subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"], stdout=subprocess.PIPE)
    message = r"Prefect's own server did not start: .* another process has locked .*home/prefect\.db for more than 1 s; try again"
    with locked(here / "home/prefect.db"), pytest.raises(BadInput, match=message):
        server._line(ended, here / "server.log")


def test_what_is_known_of_files_that_another_process_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "WAIT", 0.05)
    with locked(tmp_path / "hashes.db"), pytest.raises(BadInput, match=r"another process has locked .*hashes\.db for more than"):
        hashes.Hashes(tmp_path)


def test_a_run_is_refused_once(project: Project) -> None:
    """By the first question, which also asks where the champion's alias is, not by each that follows."""
    answer = project.cairn("run", check=False, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert answer.returncode == 2 and (answer.stdout + answer.stderr).count("nobody answers there") == 1, answer
    assert not (project.folder / ".cairn/store/files").exists()


@pytest.mark.parametrize("name", ["my hütte", "a'b #$,;%x", "東京"])
def test_setup_tells_dvc_in_any_folder(tmp_path: Path, name: str) -> None:
    """What stood in the file stays, and DVC reads the path back."""
    from dvc.config import Config

    project = tmp_path / name
    (project / ".dvc").mkdir(parents=True)
    (project / ".dvc/config").touch()
    (project / ".dvc/config.local").write_text("['remote \"store\"']\n    url = s3://bucket/Straße\n", encoding="utf-8")
    setup.keep_inside(project)
    setup.keep_inside(project)
    config = Config(str(project / ".dvc"))
    assert config["core"]["site_cache_dir"] == str(project / ".cairn/dvc")
    assert config["remote"]["store"]["url"] == "s3://bucket/Straße"


def test_another_projects_tasks_do_not_take_the_place_of_ours(tmp_path: Path) -> None:
    """Neither before ours on the path, as PYTHONPATH puts them, nor in the current folder."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/__init__.py").write_text("raise SystemExit('somebody else')")
    command = [sys.executable, "-c", "import sys; sys.argv[1:] = ['methods']; from flows.cli import entry; entry()"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    answer = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0 and "tiny_qwen3" in answer.stdout, answer.stderr


def test_tasks_that_were_loaded_from_elsewhere_are_named(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks/__init__.py").write_text("")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import tasks; sys.path.insert(0, {str(ROOT)!r}); import flows"
    answer = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert answer.returncode == 2 and answer.stderr.startswith("cairn: `tasks` was loaded from ") and str(tmp_path) in answer.stderr


@pytest.mark.parametrize(
    ("redirection", "environment", "message"),
    [
        (">&-", {}, ""),
        (">&- 2>&-", {}, ""),
        ("", {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, "tiny_qwen3"),
        ("", {"PYTHONIOENCODING": "ascii"}, "tiny_qwen3"),
        ("", {"TERM": "dumb", "COLUMNS": "1", "TZ": "No/Where"}, "tiny_qwen3"),
    ],
)
def test_a_command_in_an_odd_shell(redirection: str, environment: dict[str, str], message: str) -> None:
    """Closed streams, a locale that is not UTF-8, an odd terminal, no home, no user."""
    command = f"exec {shlex.quote(sys.executable)} -m flows.cli methods {redirection}"
    answer = subprocess.run(
        ["/bin/sh", "-c", command], cwd=ROOT, env={"PATH": os.defpath, **environment}, capture_output=True, text=True, check=False
    )
    assert (answer.returncode, answer.stderr) == (0, "") and message in answer.stdout


@pytest.fixture
def outside() -> Iterator[Path]:
    """An empty folder without a project or a git repository above it: `make test` puts temporary files inside this one."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def test_letters_that_a_terminal_cannot_show(outside: Path) -> None:
    """In a locale of ASCII alone: the message is said all the same, and files are read as UTF-8."""
    folder = outside / "Hütte"
    folder.mkdir()
    command = [sys.executable, "-c", "import sys; sys.argv[1:] = ['run']; from flows.cli import entry; entry()"]
    environment = {"PATH": os.defpath, "PYTHONPATH": str(ROOT), "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    answer = subprocess.run(
        command, cwd=folder, env=environment | {"PYTHONIOENCODING": "ascii"}, capture_output=True, check=False, timeout=60
    )
    assert answer.returncode == 2 and rb"H\xfctte is not inside a Cairn project" in answer.stderr, answer.stderr


def test_without_git_dvc_says_what_to_do(outside: Path) -> None:
    project = make_project(outside / "project")
    shutil.rmtree(project.folder / ".git")
    answer = project.dvc("status", check=False)
    assert answer.returncode != 0
    assert "`git init` makes one, or `dvc config core.no_scm true`" in busy(project.folder, answer.stderr)
    project.dvc("config", "core.no_scm", "true")
    project.dvc("status")


def test_no_project_is_run_by_the_code_of_another(tmp_path: Path) -> None:
    """As with the PATH of one checkout in the folder of another: what is kept there would be named after code that did not run."""
    for name in ("dvc.yaml", "params/pipeline.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def version() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "flows.cli", "--version"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=tmp_path / "params", env=environment, capture_output=True, text=True, check=False)

    assert version().returncode == 0, "a project without code of its own"
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows/__init__.py").touch()
    answer = version()
    assert answer.returncode == 2 and f"There it is {tmp_path}/.venv/bin/cairn" in answer.stderr, answer
    assert not (tmp_path / ".cairn/store").exists()


def test_a_server_that_still_computes_is_waited_for_and_one_that_hangs_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.server.START", 1.0)
    computing, hanging = (
        subprocess.Popen([sys.executable, "-c", code])
        for code in ("import time\nuntil = time.monotonic() + 150\nwhile time.monotonic() < until: pass", "import time; time.sleep(60)")
    )
    patient = [server._Patience(one) for one in (computing, hanging)]
    for one in patient:
        one.start()
    assert hanging.wait(120) == -signal.SIGKILL and computing.poll() is None
    patient[0].cancel()
    patient[0].join()
    assert computing.poll() is None
    computing.kill()
    computing.wait()
