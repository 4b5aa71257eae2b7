"""Objects in processes of their own, for those that keep their state where a process has it once: in globals of modules and classes.

Each process holds one object. A conversation meets the process that holds its state; with more conversations than processes, one is
brought to it (snapshot, restore). Costs: the imports of the world's module for each process that starts, then some 0.2 ms a call beside
the call.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import struct
import subprocess
import sys
import threading
from typing import IO, Any

from tasks.contract.params import BadInput
from tasks.contract.problem import Kind
from tasks.worlds.adapters.foreign_state import Saved, SourceDown, SourceFailed
from tasks.worlds.api.tools import Refused

MOST = 16
"""Processes that one process of Cairn starts for one world; ours."""
GRACE = 5.0
"""Seconds after the end of a call's time until its process is ended, if that has not given up the call by itself; ours."""


def late(where: str, tool: str, seconds: float) -> str:
    """What is said of a call that took too long."""
    return f"tool {tool!r} of {where}: did not answer within {seconds:g} s; let it answer sooner, or raise call_seconds"


def send(out: IO[bytes], message: Any) -> None:
    """Write a message to the other process."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    out.write(struct.pack("!Q", len(data)) + data)
    out.flush()


def received(source: IO[bytes]) -> Any:
    """The next message of the other process, which this one started or was started by. EOFError when there is none any more."""
    head = source.read(8)
    if len(head) < 8:
        raise EOFError
    return pickle.loads(source.read(struct.unpack("!Q", head)[0]))


class _Process:
    def __init__(self, made_of: bytes) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        command = [sys.executable, "-m", "tasks.worlds.adapters.object_worker"]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self.holds: Any = None
        try:
            self.answer_to(made_of)
        except (EOFError, OSError):
            raise SourceDown(
                f"the process of an object ended with {self.end()} while the object was made. Its module must be importable, and "
                "factory must work, in a process of its own."
            ) from None

    def answer_to(self, message: Any, seconds: float | None = None) -> Any:
        """What it answers. EOFError or OSError when it has ended, TimeoutError when it has not begun to within so many seconds."""
        assert self._child.stdin is not None and self._child.stdout is not None
        send(self._child.stdin, message)
        waiting = select.poll()  # not select, which fails in a process with more than 1,024 files open
        waiting.register(self._child.stdout, select.POLLIN | select.POLLHUP)
        if not waiting.poll(None if seconds is None else seconds * 1000):
            raise TimeoutError
        return received(self._child.stdout)

    def end(self, at_once: bool = False) -> int:
        """Let it end, or kill it; its exit code."""
        assert self._child.stdin is not None and self._child.stdout is not None
        if at_once:
            self._child.kill()
        with contextlib.suppress(OSError):  # what was not sent yet, to one that has ended
            self._child.stdin.close()
        self._child.stdout.close()
        return self._child.wait()


class Processes:
    """The processes of one world. made_of: the arguments of `Objects` that each is made of, which a new process must be able to
    import. call_seconds: longest that a call may take."""

    def __init__(self, where: str, made_of: dict[str, Any], call_seconds: float) -> None:
        self._where, self._call_seconds = where, call_seconds
        try:
            self._made_of = pickle.dumps(made_of)
        except Exception as error:
            raise BadInput(
                f"{where}: conversations='own_process': factory, snapshot and restore must be functions of a module, so "
                f"that a new process can import them ({error})."
            ) from None
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._all: list[_Process] = []
        self._free: list[_Process] = []
        self._change = threading.Condition()

    def call(self, saved: Saved, name: str, arguments: dict[str, Any], kind: Kind | None) -> tuple[Any, str]:
        """The answer, and the state after it as it was dumped. Raises Refused, SourceFailed, and SourceDown when no process can be
        made any more."""
        process = self._taken(saved.token)
        try:
            process.holds = None
            how, said, token = process.answer_to((saved.token, name, arguments, kind), self._call_seconds + GRACE)
        except TimeoutError:
            self._lost(process, at_once=True)
            raise SourceFailed(f"{late(self._where, name, self._call_seconds)}. The process of its object was ended.") from None
        except (EOFError, OSError):
            code = self._lost(process)
            self._put_back(self._new())  # which shows whether one can be made at all
            raise SourceFailed(
                f"tool {name!r} of {self._where}: the process of its object ended with {code} during the call."
            ) from None
        process.holds = token if how == "answer" else None
        self._put_back(process)
        if how == "refused":
            raise Refused(said)
        if how == "failed":
            raise SourceFailed(said)
        return said, token

    def _lost(self, process: _Process, at_once: bool = False) -> int:
        """Do without a process; its exit code."""
        code = process.end(at_once)
        with self._change:
            self._all.remove(process)
            self._change.notify()
        return code

    def _taken(self, token: str) -> _Process:
        """A free process: one that holds the state, or a new one, or the one used least lately."""
        with self._change:
            while True:
                best = next((one for one in self._free if one.holds == token), None)
                if best is None and len(self._all) < MOST:
                    return self._new()
                best = best or next(iter(self._free), None)
                if best is not None:
                    self._free.remove(best)
                    return best
                self._change.wait()

    def _new(self) -> _Process:
        """One more. Raises SourceDown for one that cannot be made."""
        with self._change:
            self._all.append(made := _Process(self._made_of))
            return made

    def _put_back(self, process: _Process) -> None:
        with self._change:
            self._free.append(process)
            self._change.notify()
