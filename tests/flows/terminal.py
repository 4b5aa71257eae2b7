"""A command in a terminal of its own: a key is pressed at a chosen moment, and what is left of the command is looked for."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.conftest import Project

CTRL_C = b"\x03"


@dataclass
class Terminal:
    """A started command. `output` grows while it is read; `disturbed` is its length when the first key was pressed or signal sent."""

    pid: int
    master: int
    folder: Path
    output: str = ""
    disturbed: int = -1

    @classmethod
    def start(cls, project: Project, command: Sequence[str], **environment: str) -> Terminal:
        pid, master = pty.fork()
        if pid == 0:  # the child leads a session, and the terminal is its own
            try:
                signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may have been told to ignore it
                os.chdir(project.folder)
                os.execvpe(command[0], list(command), {**project.environment, **environment})
            finally:
                os._exit(127)
        return cls(pid, master, project.folder)

    def answer(self) -> list[str]:
        """The lines it has said since, without the terminal's own signs."""
        output = re.sub(r"\^C|\x1b\[\??[\d;]*[A-Za-z]", "", self.output[self.disturbed :])
        return [line.strip() for line in output.splitlines() if line.strip()]

    def _note(self) -> None:
        self.disturbed = self.disturbed if self.disturbed >= 0 else len(self.output)

    def press(self, key: bytes = CTRL_C) -> None:
        self._note()
        os.write(self.master, key)

    def hang_up(self) -> None:
        """Close the terminal's window."""
        self._note()
        os.close(self.master)
        self.master = -1

    def read(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self.master >= 0 and (left := end - time.monotonic()) > 0:
            if select.select([self.master], [], [], left)[0]:
                try:
                    self.output += os.read(self.master, 65536).decode(errors="replace")
                except OSError:  # nobody holds the other end any more
                    return
        if self.master < 0:
            time.sleep(seconds)

    def until(self, condition: Callable[[], object], timeout: float = 120) -> None:
        end = time.monotonic() + timeout
        while not condition():
            self.read(0.2)
            assert time.monotonic() < end, f"it did not come so far: {self.output}"
            assert os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None, f"it ended before: {self.output}"

    def ended(self, timeout: float = 60) -> tuple[int, float]:
        """(exit code as a shell shows it, seconds it took)."""
        begun = time.monotonic()
        while True:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                break
            self.read(0.02)
            if time.monotonic() - begun > timeout:
                for process in self.left():
                    process.kill()
                raise AssertionError(f"still running after {timeout} s: {self.output}")
        took = time.monotonic() - begun
        if self.master >= 0:
            self.read(0.1)
            os.close(self.master)
        code = os.waitstatus_to_exitcode(status)
        return (code if code >= 0 else 128 - code), took

    def left(self) -> list[psutil.Process]:
        """Processes that still work in the project's folder."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(self.folder):
                    found.append(process)
        return found

    def runs(self, module: str) -> bool:
        """Whether one of those was started with this word on its line."""
        for process in self.left():
            with suppress(psutil.Error):
                if module in process.cmdline():
                    return True
        return False

    def kill(self, number: signal.Signals) -> None:
        """Send a signal to all of the terminal's foreground, as `timeout` and a closed terminal do."""
        self._note()
        os.killpg(os.getpgid(self.pid), number)
