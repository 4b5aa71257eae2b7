"""Runs: who holds a lock now, what killed ones left behind, and which MLflow and Prefect still show as running.

Servers elsewhere are not asked for that: what runs there may belong to another machine.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from flows.doctor.databases import PATIENCE, local_mlflow, own_prefect
from flows.doctor.finding import Finding, Place, good, note, warning
from flows.dvc_command import holders
from tasks.engine import journal
from tasks.engine.files import read_json
from tasks.engine.locks import FOLDER, holder, is_held, meaning
from tasks.engine.sqlite_files import opened

BEGUN = 120
"""Seconds that a flow run may show as running before its process has written down anything; ours."""
_OWN_SERVER = "PREFECT_HOME={home} PREFECT_SERVER_ALLOW_EPHEMERAL_MODE=true PREFECT_SERVER_ANALYTICS_ENABLED=false"
"""With these a command of Prefect's starts a server for itself, on the database of this project's runs."""
UNFINISHED = ("RUNNING", "PENDING", "CANCELLING")


def locks(place: Place) -> Iterator[Finding]:
    """Locks of Cairn and of DVC: those that are held, and what killed processes left (a lock dies with its process)."""
    files = sorted((place.state / FOLDER).glob("*"))
    held = [path for path in files if is_held(path)]
    dead = [path for path in files if path not in held and read_json(path)]
    now, left = holders(place.project)
    for line in [*(f"{meaning(path.name)}: {holder(path)}" for path in held), *(f"DVC: {one}" for one in now)]:
        yield note("locks", line)
    for line in left:
        yield warning("locks", f"left behind by DVC: {line}", "rm .dvc/tmp/rwlock   # while no DVC runs")
    if dead:
        yield note("locks", f"{len(dead)} locks were held by processes that were killed; nobody waits for them")
    if not held and not now:
        yield good("locks", "no run and no DVC command holds one")


def work(place: Place) -> Iterator[Finding]:
    """Work folders of killed runs."""
    folders = [path for path in sorted((place.state / "work").glob("*")) if path.is_dir()]
    waiting = [path for path in folders if not is_held(place.state / FOLDER / f"key-{path.name}")]
    if waiting:
        text = f"{len(waiting)} interrupted results in {place.state / 'work'}; a run that wants one goes on from there"
        yield note("leftovers", text, "cairn run   # or `cairn gc`, which says what no run of the present params wants")


def shown_as_running(place: Place) -> Iterator[Finding]:
    """Runs that the databases of this state root show as running though no process of them lives."""
    keys, flows = going_on(place.state)
    count = 0
    for path, found in ((local_mlflow(place.state), _in_mlflow), (own_prefect(), _in_prefect)):
        if path is not None and path.is_file():
            with suppress(sqlite3.DatabaseError):  # the check of databases says what is wrong with it
                for finding in found(path, keys if found is _in_mlflow else flows):
                    count += 1
                    yield finding
    if not count:
        yield good("runs", "neither MLflow nor Prefect shows a run whose process is gone")


def going_on(state: Path) -> tuple[set[str], set[str]]:
    """(keys of the runs that go on, ids of their flow runs), by the journals that are being written."""
    keys, flows = set(), set()
    for path in sorted((state / journal.FOLDER).glob("*.jsonl")):
        with suppress(FileNotFoundError, ValueError, LookupError), path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                _, _, about = json.loads(file.readline())
                keys.add(str(about.get("run")))
                flows.add(str((about.get("prefect") or {}).get("flow_run")))
    return keys, flows


def _in_mlflow(path: Path, alive: set[str]) -> Iterator[Finding]:
    query = (
        "SELECT runs.run_uuid, runs.name, own.value FROM runs LEFT JOIN tags AS parent ON parent.run_uuid = runs.run_uuid AND "
        "parent.key = 'mlflow.parentRunId' LEFT JOIN tags AS own ON own.run_uuid = COALESCE(parent.value, runs.run_uuid) AND "
        "own.key = 'cairn.run' WHERE runs.status = 'RUNNING' AND runs.lifecycle_stage = 'active'"
    )
    with closing(opened(path, "ro", PATIENCE)) as database:
        rows = database.execute(query).fetchall()
    for run, name, key in rows:
        if key not in alive:
            end = f"from mlflow import MlflowClient; MlflowClient('sqlite:///{path}').set_terminated('{run}', 'KILLED')"
            command = f"{shlex.quote(sys.executable)} -c {shlex.quote(end)}"
            yield warning("runs", f"MLflow shows run {run} ({name}) as running, and no process of this project writes it", command)


def _in_prefect(path: Path, alive: set[str]) -> Iterator[Finding]:
    query = f"SELECT id, name, state_type, strftime('%s', COALESCE(start_time, created)) FROM flow_run WHERE state_type IN {UNFINISHED}"
    with closing(opened(path, "ro", PATIENCE)) as database:
        rows = database.execute(query).fetchall()
    for run, name, state, since in rows:
        if str(run) not in alive and time.time() - int(since or 0) > BEGUN:
            home = shlex.quote(os.environ["PREFECT_HOME"])
            command = f"{_OWN_SERVER.format(home=home)} prefect flow-run delete {run}"
            yield warning(
                "runs", f"Prefect shows flow run {run} ({name}) as {state}, and no process of this project goes on with it", command
            )


def set_right(place: Place) -> Iterator[Finding]:
    """Set right what MLflow and Prefect show of runs that were killed, as far as their journals know it; a Prefect server is started
    where one is needed for that."""
    from contextlib import nullcontext

    from flows.reconcile import needs_own_server, reconcile
    from flows.server import prefect_api

    with prefect_api() if needs_own_server(place.state) else nullcontext():
        for line in reconcile(place.state):
            yield note("runs", line)
