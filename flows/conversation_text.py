"""A conversation of the report's as lines of Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flows.markdown_text import cell


def conversation_lines(talk: Mapping[str, Any], lines: int, letters: int) -> Iterator[str]:
    """What was said and called. talk: as `flows.report.talks` gives it. lines: so many of them at most. letters: so many characters of
    each message or answer. What was left out is counted."""
    yield f"World {cell(talk['world'])}, family {cell(talk['family'])}, problem {cell(talk['problem_id'])}."
    yield ""
    found = list(_all(talk, letters))
    yield from found[:lines]
    if len(found) > lines:
        yield f"- and {len(found) - lines} lines more"


def _all(talk: Mapping[str, Any], letters: int) -> Iterator[str]:
    for turn in talk["turns"]:
        if turn["text"]:
            yield f"- **{turn['who']}**: {cut(turn['text'], letters)}"
        for call in turn["calls"]:
            yield f"- calls {cut(call['name'], letters)}({cut(call['arguments'], letters)}): {cut(call['answer'], letters)}"


def cut(text: str, letters: int) -> str:
    """The beginning of a text, escaped, with how much is missing."""
    more = f" … ({len(text) - letters:,} more characters)" if len(text) > letters else ""
    return cell(text[:letters]) + more
