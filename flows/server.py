"""Prefect's server for one run: a child process in a session of its own, so that a terminal's Ctrl-C does not reach it before the run
has said goodbye.

It ends when its standard input closes: at the run's end, and also when the run was killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flows import inherited, server_checks
from tasks.contract.params import BadInput
from tasks.engine.sqlite_files import path_of, unusable

START = 180.0
"""Seconds it may take to start: a fresh database on a busy machine takes long."""
LONGEST_START = 900.0
"""Seconds after which it is given up even if it has not stopped computing."""
END = 5.0
"""Seconds it may take to write down what it was told last."""


class NoServer(RuntimeError):
    """Prefect's server could not be started; the message says what it said."""


@contextmanager
def prefect_api() -> Iterator[None]:
    """While the block runs, Prefect has a server: the one that its settings name, or one of the run's own.

    Raises BadInput when the one that is named does not answer as a Prefect server.
    """
    named = inherited.of_prefect("PREFECT_API_URL")
    if named is None:
        with serving(Path(os.environ["PREFECT_HOME"])):
            yield
    else:
        server_checks.prefect(named)
        yield


_own: dict[str, str] = {}
"""The url of the run's own server, while there is one."""


def own_url() -> str:
    """Where the run's own server answers; empty without one."""
    return _own.get("url", "")


def of_server() -> dict[str, Any]:
    """{url, own} of the server that Prefect talks to now; own: it ends with this run, and the next one has its database."""
    from prefect.settings import PREFECT_API_URL

    url = str(PREFECT_API_URL.value() or "")
    return {"url": url, "own": url == own_url()}


@contextmanager
def serving(home: Path) -> Iterator[None]:
    """While the block runs, this process's flows have a Prefect server of their own. home: its log is written there. Raises NoServer,
    or BadInput when its database cannot be used.

    While it starts, Prefect is imported here.
    """
    home.mkdir(parents=True, exist_ok=True)
    log, code = home / "server.log", Path(__file__).resolve().parents[1]
    with log.open("w") as said:
        server = subprocess.Popen(
            # Not `-m`, which would take a `flows` of the current folder; and a folder's name may hold what PYTHONPATH splits at.
            [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(code)!r}); from flows.server import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            start_new_session=True,
        )
    late = _Patience(server)
    late.start()
    try:
        url = f"http://127.0.0.1:{_line(server, log)}/api"
        os.environ["PREFECT_API_URL"] = _own["url"] = url
        from prefect.settings import PREFECT_API_URL, temporary_settings

        _line(server, log)
        late.cancel()
        with temporary_settings({PREFECT_API_URL: url}):
            yield
    finally:
        late.cancel()
        os.environ.pop("PREFECT_API_URL", None)
        _own.clear()
        _end(server)


class _Patience(threading.Thread):
    """Ends a server that has not started after START seconds, unless it computes: then a machine is slow, and it has until
    LONGEST_START."""

    def __init__(self, server: subprocess.Popen[bytes]) -> None:
        super().__init__(name="patience with a server", daemon=True)
        self._server, self._over = server, threading.Event()

    def run(self) -> None:
        """Wait, and look at what it has computed, until `cancel`."""
        begun, patience = time.monotonic(), START
        while not self._over.wait(patience):
            before = _computed(self._server.pid)
            if self._over.wait(min(START, 5.0)):
                return
            if time.monotonic() - begun > LONGEST_START or _computed(self._server.pid) <= before:
                self._server.kill()
                return
            patience = min(START, 5.0)

    def cancel(self) -> None:
        """It has started, or has ended."""
        self._over.set()


def _computed(process: int) -> int:
    """Ticks of a processor that a process has had; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def _line(server: subprocess.Popen[bytes], log: Path) -> str:
    """The next line of what the server tells: its port, then that it answers."""
    assert server.stdout is not None
    if line := server.stdout.readline():
        return line.decode().strip()
    ended = server.wait()
    if (file := own_database()) and (why := unusable(file, 1)):
        raise BadInput(f"Prefect's own server did not start: its database cannot be used: {why}.")
    lines = log.read_text(errors="replace").strip().splitlines()
    how = f"did not start in {START:.0f} s" if ended == -signal.SIGKILL else f"ended with code {ended}"
    raise NoServer(f"Prefect's own server {how}. It said last: {lines[-1] if lines else 'nothing'}. All of it: {log}")


def own_database() -> Path | None:
    """The SQLite file in which the run's own server keeps its records; None for another kind of database."""
    url = own_database_url()
    return path_of(url) if url else Path(os.environ["PREFECT_HOME"]) / "prefect.db"


def own_database_url() -> str:
    """Where the run's own server keeps its records, as the settings say; "" for Prefect's own place."""
    named = [inherited.of_prefect(f"PREFECT_{part}DATABASE_CONNECTION_URL") for part in ("SERVER_", "API_")]
    return next((one.value for one in named if one), os.environ.get("PREFECT_SERVER_DATABASE_CONNECTION_URL", ""))


def _end(server: subprocess.Popen[bytes]) -> None:
    with suppress(OSError):
        assert server.stdin is not None
        server.stdin.close()
    try:
        server.wait(timeout=END)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


# --- the child -------------------------------------------------------------------------------------------------------


def main() -> None:
    """Serve until standard input ends. Standard output gets two lines: the port at once, and `ready` when it answers."""
    import socket

    os.environ |= {"PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1", "PREFECT_UI_ENABLED": "0"}
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the log

    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    print(listening.getsockname()[1], file=lines, flush=True)

    import uvicorn
    from prefect.server.api.server import create_app

    server = uvicorn.Server(uvicorn.Config(create_app, factory=True, log_level="error", lifespan="on"))

    def tell() -> None:
        while not server.started:
            time.sleep(0.02)
        print("ready", file=lines, flush=True)

    def leave_with_the_run() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True
        time.sleep(END)  # the next lines are for a server that does not end by itself, after its run was killed
        os._exit(1)

    for work in (tell, leave_with_the_run):
        threading.Thread(target=work, daemon=True).start()
    try:
        server.run(sockets=[listening])
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(0 if server.started else 1)  # at an ordinary end the thread that reads standard input would have Python abort
