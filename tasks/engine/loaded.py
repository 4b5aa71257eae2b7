"""The process that `tasks.engine.warm` starts: it loads what every training loads, and forks a child for each that it is asked for."""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tasks.engine import child
from tasks.engine.process import die_with_parent
from tasks.engine.warm import LINES

LOADED = ("torch", "transformers", "peft", "datasets", "safetensors.torch", "pyarrow.parquet", "trl.trainer.sft_trainer")
"""What trainings import that is not the project's own."""


def main(parent: int) -> int:
    """Load, then fork a child for each folder and environment named on stdin; what is born and what has ended is told on stdout."""
    die_with_parent(parent)
    for name in LOADED:
        importlib.import_module(name)
    _tell("ready", _threads() == 1)
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(write)
    waiting = b""
    while True:
        ready, _, _ = select.select([0, read], [], [])
        if read in ready:
            os.read(read, 4096)
            _bury()
        if 0 in ready:
            if not (some := os.read(0, 65536)):
                return 0
            *lines, waiting = (waiting + some).split(b"\n")
            for line in lines:
                scratch, environment = json.loads(line)
                _bear(Path(scratch), environment, [read, write])


def _threads() -> int:
    """How many threads a fork would lose but for the one that forks. pyarrow's allocator begins its own anew in each fork."""
    names = [Path(f"/proc/self/task/{task}/comm").read_text().strip() for task in os.listdir("/proc/self/task")]
    return sum(name != "jemalloc_bg_thd" for name in names)


def _bear(scratch: Path, environment: Mapping[str, str], mine: list[int]) -> None:
    lines = os.open(scratch / LINES, os.O_WRONLY)  # before the fork: who reads must not find an end while nobody has begun to write
    if pid := os.fork():
        os.close(lines)
        _tell("born", pid)
        return
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in mine:
            os.close(descriptor)
        os.setsid()
        os.environ.clear()
        os.environ.update(environment)
        _redirect(scratch, lines)
        code = child.main(scratch, os.getppid())
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _redirect(scratch: Path, lines: int) -> None:
    """As a child that was started: nothing to read, lines to the fifo, what libraries say to a file."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(scratch / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for number, descriptor in enumerate((nothing, lines, output)):
        os.dup2(descriptor, number)
        os.close(descriptor)


def _bury() -> None:
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            _tell("ended", found[0], os.waitstatus_to_exitcode(found[1]))


def _tell(*parts: Any) -> None:
    print(json.dumps(parts), flush=True)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
