"""What libraries make of broken files of somebody else's, in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tasks.contract.params import BadInput, StageFailed


@contextmanager
def readable(fault: str, why: str = "") -> Iterator[None]:
    """BadInput for files that a library cannot make anything of: `fault`, and why; empty: what the library says."""
    try:
        yield
    except (StageFailed, BadInput):
        raise
    except Exception as error:  # what is wrong in a file of somebody else's comes as any of them: tokenizers raises Exception itself
        raise BadInput(f"{fault}: {why or next(iter(str(error).split(chr(10))), '').strip() or type(error).__name__}") from None
