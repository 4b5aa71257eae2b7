"""Memory that runs out while a model is loaded, plays or trains: told with the numbers to lower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tasks.contract.params import StageFailed

FULL = ("can't allocate memory", "out of memory", "cannot allocate memory")
"""What libraries say when memory ran out and they have no error of its own for it."""


@contextmanager
def advised(where: str, advice: str) -> Iterator[None]:
    """StageFailed when memory runs out in the block. where: a room or what was done, advice: what to lower; for the message."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError whose words are among FULL
        if isinstance(error, RuntimeError) and not any(words in str(error).lower() for words in FULL):
            raise
        raise StageFailed(f"{where}: out of memory. {advice} ({next(iter(str(error).splitlines()), '')[:200]})") from error
