"""Ctrl-C in a terminal, at any moment: 130 within five seconds, one line, nothing left running, and the next run goes on.

Each test presses the key on a pseudo-terminal, whose kernel sends the signal to the whole foreground, as a person's terminal does.
"""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.interrupt import MESSAGE
from infra.stub import running
from tests.conftest import Project, make_project
from tests.flows.terminal import Terminal

pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("terminal")]

RUN = (sys.executable, "-m", "flows.cli", "run")
ENDLESS = ("--to", "base", "--set", "base.tiny_qwen3.steps=20000")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, migrated: Callable[[Project], Project]) -> Project:
    return migrated(make_project(tmp_path_factory.mktemp("terminal") / "project"))


@pytest.fixture(autouse=True)
def alone(project: Project) -> Iterator[None]:
    """What a failed test left goes on in no other."""
    yield
    for process in Terminal(0, -1, project.folder).left():
        with suppress(psutil.Error):
            process.kill()


def trains(terminal: Terminal) -> bool:
    return terminal.runs("tasks.engine.child")


def ends(terminal: Terminal, within: float = 5.0, code: int = 130, quiet: bool = False) -> None:
    """It ends as asked, and what it said after the key is the one line. On a machine with more to do than cores, all takes longer."""
    shared = 2.0 if "PYTEST_XDIST_WORKER" in os.environ else 1.0  # other tests run beside this one, whatever the load was a minute ago
    within *= max(shared, os.getloadavg()[0] / (os.cpu_count() or 1))
    found, seconds = terminal.ended()
    assert (found, terminal.left()) == (code, []), terminal.output
    assert seconds < within, f"{seconds:.1f} s\n{terminal.output}"
    assert terminal.answer() == ([] if quiet else [f"cairn: {MESSAGE}"])


def test_while_it_loads(project: Project) -> None:
    terminal = Terminal.start(project, (*RUN, *ENDLESS))
    terminal.read(0.3)
    terminal.press()
    ends(terminal, within=2.0)


def test_while_the_server_starts(project: Project) -> None:
    (project.folder / ".cairn/prefect/server.log").unlink(missing_ok=True)
    terminal = Terminal.start(project, (*RUN, *ENDLESS))
    terminal.until((project.folder / ".cairn/prefect/server.log").exists)
    terminal.press()
    ends(terminal)


def test_while_a_training_runs(project: Project) -> None:
    """Prefect and MLflow are told, and the next run goes on from what was finished."""
    terminal = Terminal.start(project, (*RUN, *ENDLESS))
    terminal.until(lambda: trains(terminal))
    terminal.read(0.5)
    terminal.press()
    ends(terminal)
    assert _rows(project, "prefect/prefect.db", "select distinct state_type from flow_run") == [("CRASHED",)]
    assert _rows(project, "mlflow.db", "select name, status from runs where name like 'base%'") == [("base: tiny_qwen3", "KILLED")]

    again = Terminal.start(project, (*RUN, *ENDLESS))
    again.until(lambda: trains(again))
    assert "worlds    cached" in again.output
    again.press()
    again.read(0.2)
    again.press()
    ends(again, within=2.5)


@pytest.mark.parametrize("how", ["hung up", signal.SIGHUP, signal.SIGTERM])
def test_other_ways_to_end_the_foreground(project: Project, how: str | signal.Signals) -> None:
    (project.folder / ".cairn/prefect/server.log").unlink(missing_ok=True)
    terminal = Terminal.start(project, (*RUN, *ENDLESS))
    terminal.until((project.folder / ".cairn/prefect/server.log").exists)
    terminal.read(1.0)
    if isinstance(how, str):
        terminal.hang_up()
    else:
        terminal.kill(how)
    ends(terminal, quiet=isinstance(how, str))


def test_while_generate_waits_for_a_server(project: Project, prefect_server: str) -> None:
    """Its threads wait for answers that take a minute; nobody waits for the threads."""
    with running(latency=60) as stub:
        judge = f"{{backend: openai_compatible, base_url: '{stub.url}', model: stub}}"
        command = (*RUN, "--to", "generate", "--set", f"roles.judge={judge}", "--set", "base.tiny_qwen3.steps=1")
        terminal = Terminal.start(project, command, PREFECT_API_URL=prefect_server)
        terminal.until(lambda: stub.counts()["open"])
        terminal.press()
        ends(terminal)


def test_while_dvc_is_told(project: Project, prefect_server: str) -> None:
    """dvc.lock stays as it was, and the next run, which has nothing to compute, tells DVC."""
    terminal = Terminal.start(project, (*RUN, "--to", "worlds"), PREFECT_API_URL=prefect_server)
    terminal.until(lambda: any("commit" in process.cmdline() for process in terminal.left()))
    terminal.press()
    ends(terminal)
    assert not (project.folder / "dvc.lock").exists()
    assert "dvc.lock updated for worlds" in project.cairn("run", "--to", "worlds").stdout
    assert set(project.identities()) == {"worlds"}


@pytest.mark.reliability
@pytest.mark.parametrize(
    ("command", "code", "theirs"),
    [
        (("make", "--no-print-directory", "-o", ".venv/.ready", "run"), 130, r"make: \*\*\* \[Makefile:\d+: run\] Error 130"),
        ((sys.executable, "-m", "dvc", "repro", "base"), 255, r"ERROR: failed to reproduce 'base': .* exited with 130"),
    ],
)
def test_under_another_program(tmp_path: Path, command: Sequence[str], code: int, theirs: str) -> None:
    """make and DVC end with codes and words of their own, after ours."""
    root = Path(__file__).resolve().parents[2]
    project = make_project(tmp_path / "project")
    (project.folder / "Makefile").write_text((root / "Makefile").read_text())
    (project.folder / ".venv/bin").mkdir(parents=True)
    start = project.folder / ".venv/bin/python"
    start.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    start.chmod(0o755)
    params = project.folder / "params/pipeline.yaml"
    head, name, tail = params.read_text().partition("tiny_qwen3:")
    params.write_text(head + name + re.sub(r"\bsteps: \d+", "steps: 20000", tail, count=1))

    terminal = Terminal.start(project, command)
    terminal.until(lambda: trains(terminal))
    terminal.read(0.5)
    terminal.press()
    assert terminal.ended()[0] == code and terminal.left() == []
    ours, *rest = terminal.answer()
    assert ours == f"cairn: {MESSAGE}" and re.fullmatch(theirs, " ".join(rest)), terminal.output


@pytest.mark.reliability
def test_cancel_in_prefects_screen(tmp_path: Path, prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A served run that is cancelled ends as Cancelled, not as crashed, and its training with it."""
    from prefect import get_client
    from prefect.exceptions import ObjectNotFound
    from prefect.settings import PREFECT_API_URL, temporary_settings
    from prefect.states import Cancelling

    project = make_project(tmp_path / "project")
    code = "from flows.pipeline import pipeline; pipeline.serve(name='cancel')"
    environment = {**project.environment, "PREFECT_API_URL": prefect_server}
    served = subprocess.Popen([sys.executable, "-c", code], cwd=project.folder, env=environment, start_new_session=True)

    def trainings() -> list[psutil.Process]:
        found = []
        for one in psutil.Process(served.pid).children(recursive=True):
            with suppress(psutil.Error):  # it may end while it is looked at
                if one.status() != psutil.STATUS_ZOMBIE and "tasks.engine.child" in one.cmdline():
                    found.append(one)
        return found

    def wait_for(condition: Callable[[], Any]) -> Any:
        end = time.monotonic() + 120
        while not (found := condition()):
            assert time.monotonic() < end
            time.sleep(0.3)
        return found

    try:
        with temporary_settings({PREFECT_API_URL: prefect_server}), get_client(sync_client=True) as client:

            def deployment() -> Any:
                with suppress(ObjectNotFound):
                    return client.read_deployment_by_name("cairn/cancel")

            part = {"overrides": {"base.tiny_qwen3.steps": 20000}, "last": "base"}
            run = client.create_flow_run_from_deployment(wait_for(deployment).id, parameters=part).id
            wait_for(trainings)
            client.set_flow_run_state(run, Cancelling())
            wait_for(lambda: client.read_flow_run(run).state.name == "Cancelled")
            assert trainings() == []
    finally:
        os.killpg(served.pid, signal.SIGKILL)
        served.wait()


def _rows(project: Project, database: str, question: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(project.folder / ".cairn" / database) as connection:
        return connection.execute(question).fetchall()
