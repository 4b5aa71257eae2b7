"""What commands print: text for people, or one JSON document for scripts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any


@contextmanager
def alone(as_json: bool) -> Iterator[None]:
    """While the block runs, whatever is printed (by a world's code, by a library) goes to the error stream if a document is to come."""
    if as_json:
        with redirect_stdout(sys.stderr):
            yield
    else:
        yield


def print_json(document: Any) -> None:
    """Print one document; what JSON has no word for (a path, a date, a set) is printed as text."""
    print(json.dumps(document, indent=1, ensure_ascii=False, default=str))
