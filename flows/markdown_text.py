"""Headings and tables in Markdown, of texts that may be anybody's."""

from __future__ import annotations

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
    """Names come from params, worlds and models: they must not end a cell or open a tag."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
