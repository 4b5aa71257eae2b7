"""Values as Python's source in the form that `ruff format` leaves as it is: a project's first `make check` finds nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence

WIDTH = 136
"""Characters of a line, as pyproject.toml has it."""

INDENT = 8
"""Spaces before an argument in world.py."""


def quoted(text: str) -> str:
    r"""A text in double quotes; in single ones where that saves escapes.

    >>> quoted("GET /orders"), quoted('say "yes"')
    ('"GET /orders"', '\'say "yes"\'')
    """
    if '"' in text and "'" not in text:
        return repr(text)
    return json.dumps(text, ensure_ascii=False)


def argument(name: str, texts: Sequence[str], indent: int, comment: str = "") -> list[str]:
    """An argument that is a tuple of texts, as lines: one where it fits. indent: spaces that come before each line.

    >>> argument("tools", ["a", "b"], 8, "two")
    ['tools=("a", "b"),  # two']
    """
    words = [quoted(text) for text in texts]
    told = f"  # {comment}" if comment else ""
    line = f"{name}=({', '.join(words)}{',' if len(words) == 1 else ''}),"
    if indent + len(line) <= WIDTH or len(words) == 1:
        return [f"{line}{told}"]
    return [f"{name}=({told}", *(f"    {word}," for word in words), "),"]
