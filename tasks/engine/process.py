"""A method's run in a process of its own: seeded there, with fixed threads and kernels, and killed with its parent.

TRL and transformers use global generators and global thread pools; a process per training keeps them apart. The child writes its
curves and its progress as JSON lines; the parent passes them on.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

from tasks.contract.client import BudgetSpent, CallFailed, NearlyAllLost
from tasks.contract.params import BadInput, StageFailed
from tasks.engine import disk, warm
from tasks.engine.start import kernels
from tasks.training.distributed import processes


class ProcessFailed(RuntimeError):
    """The child ended without a result; the message ends with what it said last."""


Process = subprocess.Popen[str] | warm.Child
_children: set[Process] = set()
_stopped = Event()


def stop_all() -> None:
    """Kill the trainings of this process and start no others: an interrupted run does not wait for them (they resume)."""
    _stopped.set()
    for child in list(_children):
        _kill(child)


def stopped() -> bool:
    """Whether `stop_all` was called: whatever fails from then on was cancelled."""
    return _stopped.is_set()


def _kill(child: Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)  # with its forks: the group is the child's own


def _unheard(details: Mapping[str, Any]) -> None:
    """What nobody listens to."""


def run(
    spec: Mapping[str, Any],
    project: Path,
    log: Callable[..., None],
    progress: Callable[..., None],
    calls: Callable[[Mapping[str, Any]], None] = _unheard,
    used: Callable[[Mapping[str, Any]], None] = _unheard,
) -> dict[str, Any]:
    """Run a spec in a child process; returns its figures. calls: told how calls to servers go (`tasks.engine.call_figures.telling`).
    used: told what the child used of the machine (`tasks.engine.usage.used`).

    Curves of an earlier, killed attempt are passed on again (the child rewrites them), so a resumed run logs whole curves.
    """
    if _stopped.is_set():
        raise ProcessFailed(f"{_name(spec)}: cancelled before it started")
    scratch = Path(spec["scratch"])
    (scratch / "figures.json").unlink(missing_ok=True)
    (scratch / "spec.json").write_text(json.dumps(spec))
    environment = environment_of(spec["threads"], spec["instructions"], processes(spec.get("loop")))
    child = _started(spec, scratch, project, environment)
    _children.add(child)
    if _stopped.is_set():  # the signal came while it started
        _kill(child)
    try:
        error = _pass_on(child, {"log": log, "progress": progress, "calls": calls, "used": used})
        code = child.wait()
    finally:
        _children.discard(child)
        if child.poll() is None:
            _kill(child)
            child.wait()
    if code == 0 and (scratch / "figures.json").exists():
        figures: dict[str, Any] = json.loads((scratch / "figures.json").read_text())
        return figures
    if error and error[0] == BadInput.__name__:
        raise BadInput(error[1])
    if error and error[0] in (StageFailed.__name__, BudgetSpent.__name__, NearlyAllLost.__name__):
        raise StageFailed(f"{_name(spec)}: {error[1]}")
    if error and error[0] == CallFailed.__name__:
        raise CallFailed(f"{_name(spec)}: {error[1]}")
    raise ProcessFailed(_last_words(spec, scratch, code, error))


def environment_of(threads: int, instructions: str = "avx2", several: int = 1) -> dict[str, str]:
    """The environment of a child. several: how many processes train together in it."""
    found = {**os.environ, **kernels(threads, instructions)}
    found.pop("PYTHONSAFEPATH", None)  # the project's own modules are found by the folder it starts in
    if several == 1:
        found.setdefault("CUDA_VISIBLE_DEVICES", "0")  # for one GPU: the Trainer would spread batches over all
    return found


def _started(spec: Mapping[str, Any], scratch: Path, project: Path, environment: Mapping[str, str]) -> Process:
    """The child: a fork of a loaded process where there is one (`tasks.engine.warm`), else a new process."""
    if spec["device"] == "cpu" and processes(spec.get("loop")) == 1 and (fork := warm.child(scratch, environment)):
        return fork
    with (scratch / "output.txt").open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "tasks.engine.child", str(scratch), str(os.getpid())],
            cwd=project,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            start_new_session=True,  # Ctrl-C in a terminal goes to the run alone, which stops the training itself
        )


def die_with_parent(parent: int) -> None:
    """Linux: a killed parent takes its trainings along, so that no orphan writes into the next attempt's scratch.

    For the child to call (as `preexec_fn` it would run Python between fork and exec, where a signal to the parent is lost).
    """
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:  # it died before
        os.kill(os.getpid(), signal.SIGKILL)


def _pass_on(child: Process, ears: Mapping[str, Callable[..., None]]) -> list[str] | None:
    """Pass what the child tells on until it closes its end; returns [kind, text] of the error it ended with, if any."""
    assert child.stdout is not None
    error = None
    for line in child.stdout:
        try:
            kind, *rest = json.loads(line)
        except ValueError:
            continue  # a library printed something; the child's own lines are JSON lists
        if kind == "error":
            error = rest
        else:
            ears[kind](*rest)
    return error


def end_of(code: int | None) -> str:
    """How a process ended, in words, by its exit code (negative: a signal). Only a kill that nobody here sent hints at memory."""
    if code is None or code >= 0:
        return f"ended with code {code}"
    name = {one.value: one.name for one in signal.Signals}.get(-code, f"signal {-code}")
    hint = " (out of memory? `cairn forecast` says which number to lower)" if -code == signal.SIGKILL else ""
    return f"was ended by {name}{hint}"


def _name(spec: Mapping[str, Any]) -> str:
    return f"{spec['stage']}/{spec['method']}{' ' + spec['unit'] if spec.get('unit') else ''}"


def _last_words(spec: Mapping[str, Any], scratch: Path, code: int, error: list[str] | None) -> str:
    name = _name(spec)
    if _stopped.is_set():
        return f"{name}: cancelled; what it has done so far is kept, and the next run goes on from there"
    if error:
        text = f"{name}: {': '.join(error)}"
    else:
        lines = (scratch / "output.txt").read_text(errors="replace").strip().splitlines()
        last = " | ".join(lines[-3:]) or "nothing"
        text = f"{name}: its process {end_of(code)}. It said last: {last}. All of it: {scratch / 'output.txt'}"
    said = disk.in_words(ProcessFailed(text), [scratch])  # libraries have many words for a full one
    return f"{name}: {said}" if said else text
