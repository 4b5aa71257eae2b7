"""HTTP servers on loopback for the tests of the engine `server`: `cairn serve` itself, or any other app."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """The address of an app while the block runs."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def serving(folder: Path, name: str = "base") -> Iterator[str]:
    """The address of `cairn serve` with a checkpoint folder."""
    from tasks.serving.endpoint.app import make
    from tasks.serving.endpoint.opened import opened

    served = opened(folder, {}, name, "cpu", "float32", 300)
    try:
        with listening(make(served)) as url:
            yield url
    finally:
        served.thread.end()
