"""What commands print: text for people, or one JSON document for scripts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from typing import Any, TextIO

_documents: ContextVar[TextIO | None] = ContextVar("_documents", default=None)
"""Where the document goes while `alone`."""


@contextmanager
def alone(as_json: bool) -> Iterator[None]:
    """While the block runs, whatever is printed (by a world's code, by a library) goes to the error stream if a document is to come;
    `print_json` alone still reaches the output. `group.Command` runs every command with `--json` in one."""
    if not as_json:
        yield
        return
    outer = _documents.set(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _documents.reset(outer)


def print_json(document: Any) -> None:
    """Print one document; what JSON has no word for (a path, a date, a set) is printed as text."""
    print(json.dumps(document, indent=1, ensure_ascii=False, default=str), file=_documents.get() or sys.stdout, flush=True)
