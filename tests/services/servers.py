"""Real services on loopback for tests, each ended with its block: Postgres from the distribution, a Prefect server, a worker."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from infra.bench import free_port

NO_POSTGRES = "NOT TESTED ON POSTGRES: it is not installed (apt-get install postgresql); neither PATH nor /usr/lib/postgresql has initdb and postgres"
START = 180.0
"""Seconds that a service may take to answer, on a busy machine with a fresh database."""


def postgres_programs() -> Path | None:
    """The folder of Postgres's programs: on the PATH, or where Debian and Ubuntu keep them; None where it is not installed."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


@contextmanager
def postgres(programs: Path) -> Iterator[str]:
    """A fresh database while the block runs: `host:port/name`, with the user's name before it and without a password."""
    with tempfile.TemporaryDirectory(prefix="postgres-", dir="/tmp") as place:
        as_user = _not_root(Path(place))
        data, port = Path(place) / "data", free_port()
        programmed = [
            programs / "initdb",
            "--pgdata",
            data,
            "--auth",
            "trust",
            "--username",
            "cairn",
            "--encoding",
            "UTF8",
            "--no-sync",
        ]
        subprocess.run(programmed, check=True, stdout=subprocess.DEVNULL, cwd=place, **as_user)
        options = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"]
        command = [programs / "postgres", "-D", data, "-p", str(port), *(part for one in options for part in ("-c", one))]
        with running(command, Path(place) / "log", signal.SIGINT, cwd=place, **as_user) as server:
            wait_until(lambda: _accepts(port), server, Path(place) / "log")
            yield f"cairn@127.0.0.1:{port}/postgres"


def _not_root(place: Path) -> dict[str, object]:
    """Postgres refuses to run as root: as whom it runs there, for `subprocess`; the folder is given to that user."""
    if os.getuid():
        return {}
    names = {one.pw_name for one in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    os.chown(place, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@contextmanager
def prefect_server(home: Path, environment: Mapping[str, str], database: str = "") -> Iterator[str]:
    """`prefect server start` with all its services while the block runs; the URL of its API. database: a URL; "": SQLite in `home`."""
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    own = {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_SERVER_UI_API_URL": url}
    own |= {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database} if database else {}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with running(command, home / "server.log", signal.SIGTERM, env={**environment, **own}) as server:
        wait_until(lambda: _healthy(url), server, home / "server.log")
        yield url


@contextmanager
def mlflow_server(folder: Path, database: str = "sqlite:///mlflow.db") -> Iterator[str]:
    """A tracking server of MLflow's while the block runs; its address. It keeps files in `folder/kept`, and has none of the eight
    processes beside it that run jobs of MLflow's. database: the URL of its records."""
    folder.mkdir(parents=True)
    port = free_port()
    command: list[object] = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", port]
    command += ["--backend-store-uri", database, "--artifacts-destination", "./kept"]
    url = f"http://127.0.0.1:{port}"
    without_jobs = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with running(command, folder / "log", signal.SIGTERM, cwd=folder, env=without_jobs) as server:
        wait_until(lambda: _healthy(url), server, folder / "log")
        yield url


@contextmanager
def running(command: Sequence[object], log: Path, end: signal.Signals, **more: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own while the block runs. What it started is ended with it."""
    with log.open("wb") as output:
        process: subprocess.Popen[bytes] = subprocess.Popen(  # type: ignore[call-overload]
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            **more,
        )
    try:
        yield process
    finally:
        process.send_signal(end)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # whoever it left behind


def wait_until(answers: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the service answers; AssertionError with the end of its log when it does not."""
    end = time.monotonic() + START
    while time.monotonic() < end and process.poll() is None:
        if answers():
            return
        time.sleep(0.25)
    raise AssertionError(f"it does not answer; it said last:\n{log.read_text(errors='replace')[-3000:]}")


def _accepts(port: int) -> bool:
    """Whether Postgres takes connections: it listens before it does."""
    import psycopg

    try:
        psycopg.connect(host="127.0.0.1", port=port, user="cairn", dbname="postgres", connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _healthy(url: str) -> bool:
    try:
        return bool(urllib.request.urlopen(f"{url}/health", timeout=2).status == 200)
    except OSError:
        return False
