"""Prefect's own server inside a run: it must not outlive the run, not even one that was killed.

Without a server of the user's, Prefect starts one as a child process and stops it at a normal end. After `kill -9` it would stay for
ever. A watchdog, a shell of a few kilobytes, waits on a pipe that closes with this process, and then ends the server.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

_MARK = b"prefect.server.api.server:create_app"


def _servers() -> list[int]:
    """Children of this process that are Prefect's in-process servers (Linux; elsewhere none is found and none is watched)."""
    found = []
    for listing in Path("/proc/self/task").glob("*/children"):
        for child in listing.read_text().split():
            with contextlib.suppress(OSError):
                if _MARK in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
    return found


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """While the block runs, the servers started by this process end with it, however it ends."""
    dogs = [
        subprocess.Popen(
            ["/bin/sh", "-c", 'read _; kill "$0"', str(server)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={"PATH": os.defpath},
        )
        for server in _servers()
    ]
    try:
        yield
    finally:
        for dog in dogs:
            dog.kill()
            dog.wait()
