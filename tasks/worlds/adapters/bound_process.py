"""Starts a command that ends with the process that wants it: `python leash.py PARENT COMMAND...`.

A server that hears nothing more should end by itself; one that hangs does not. Linux ends it then; elsewhere it is up to the server.
Started by its path, with nothing of the project imported, so that it costs some 20 ms.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys


def main(parent: int, command: list[str]) -> None:
    """Become the command. Exit code 127, with the reason, when there is none of that name."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG; it outlives exec
    if os.getppid() != parent:  # it died before
        sys.exit(1)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
