"""The DVC remote: where it is, whether it answers, and whether it lets this user in. Asked in a process that can be ended."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from flows.doctor.finding import Finding, Place, error, good, note
from flows.dvc_command import remotes
from flows.inherited import printable

PATIENCE = 9.0
"""Seconds in which a remote has to answer, DVC's own start of some two seconds included."""

_ASK = """
import json, sys
from dvc.repo import Repo
names = json.load(sys.stdin)
with Repo(sys.argv[1]) as repo:
    store = repo.cloud.get_remote_odb()
    if names:
        there = store.fs.exists([store.oid_to_path(name) for name in names])
        print(json.dumps([name for name, is_there in zip(names, there) if is_there]))
    else:
        print(json.dumps(bool(store.fs.exists(store.path))))
"""


@dataclass(frozen=True)
class Answer:
    """What a remote said: of which objects it has (None when it gave no answer), or why it gave none."""

    there: frozenset[str] | None
    why: str = ""


def remote(place: Place) -> Iterator[Finding]:
    """The default remote."""
    name, url, source = default(place.project)
    if not url and (others := [*remotes(place.project)[1]]):
        yield note("remotes", f"no DVC remote is the default: there are {', '.join(others)}", f"dvc remote default {others[0]}")
        return
    if not url:
        text = "no DVC remote: what is lost here can be made again, and nobody else can fetch it"
        yield note("remotes", text, "dvc remote add --default shelf s3://BUCKET/FOLDER   # or a folder on another disk")
        return
    answer = ask(place.project, (), PATIENCE)
    if answer.there is not None:
        yield good("remotes", f"{name} ({url}, {source}) answers")
    else:
        yield error(
            "remotes",
            f"{name} ({url}, {source}): {answer.why}",
            f"dvc push --remote {name}   # says more; `dvc remote modify --local {name} ...` sets keys",
        )


def default(project: Path) -> tuple[str, str, str]:
    """(name, URL without a password, file that says so) of the remote that `dvc push` takes; empty ones without one."""
    name, found = remotes(project)
    url, source = found.get(name, ("", ""))
    return name, printable("url", url), source


def ask(project: Path, names: Iterable[str], patience: float) -> Answer:
    """Which of these objects the remote has; with none, whether it answers at all."""
    wanted = json.dumps(sorted(names))
    command = [sys.executable, "-c", _ASK, str(project)]
    try:
        said = subprocess.run(command, cwd=project, input=wanted, capture_output=True, text=True, timeout=patience, check=False)
    except subprocess.TimeoutExpired:
        return Answer(None, f"no answer within {patience:.0f} s")
    if said.returncode:
        lines = [line for line in said.stderr.strip().splitlines() if line.strip()] or ["no reason given"]
        return Answer(None, lines[-1][:300])
    found = json.loads(said.stdout.strip().splitlines()[-1])
    return Answer(frozenset(found) if isinstance(found, list) else frozenset())
