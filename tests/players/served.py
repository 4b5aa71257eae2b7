"""HTTP servers on loopback for the tests of the engine `server`: `cairn serve` itself, or any other app."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.serving.endpoint.player import listening


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
