"""Headings and tables in Markdown, of texts that may be anybody's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence


def heading(text: str) -> Iterator[str]:
    """A heading of the second level, as lines with the blank ones around it."""
    yield from ("", f"## {text}", "")


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a table."""
    yield f"| {' | '.join(heads)} |"
    yield "|" + " --- |" * len(heads)
    for line in lines:
        yield f"| {' | '.join(cell(one) for one in line)} |"


def cell(text: str) -> str:
    """Text of params, worlds and models as a line that shows it and does nothing else: it ends no cell, opens no tag, is no link,
    picture or code, and no part of it is bold.

    >>> cell("a | b ![x](http://c) <b>")
    'a \\\\| b ![x]\\\\(http:\\\\//c) &lt;b>'
    """
    line = re.sub(r"([\\`*|~])", r"\\\1", " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;"))
    line = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", line)
    return line.replace("](", "]\\(").replace("://", ":\\//").replace("www.", "www\\.")


def code(text: str) -> str:
    """Text as code in a line or a cell."""
    return f"`{' '.join(text.split()).replace('`', chr(39)).replace('|', '/')}`"
