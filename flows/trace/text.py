"""A trail as text and as one page of HTML."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flows.preview_text import Page
from flows.trace.trail import Section, Trail
from tasks.engine.files import write_text

TEMPLATE = Path(__file__).with_name("page.html.jinja")


def lines(trail: Trail, page: Page) -> Iterator[str]:
    """The trail as text, section after section."""
    for number, section in enumerate(trail.sections):
        if number:
            yield ""
        yield page.ink(f"{section.kind} {section.name}", "bold")
        yield from _facts(section, page)


def _facts(section: Section, page: Page) -> Iterator[str]:
    for label, value in section.facts.items():
        for place, line in enumerate([value] if isinstance(value, str) else value):
            if line:
                yield from page.line("" if place else label, line, 2)
    for sentence in section.missing:
        yield from page.line("missing", sentence, 2, "red")


def write_page(trail: Trail, target: Path) -> None:
    """Write the trail as one self-contained page: it loads nothing and runs no script, and whatever a model wrote is escaped."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["json"] = _json
    names = {section.name: f"s{number}" for number, section in reversed([*enumerate(trail.sections)])}
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(trail=trail, anchors=names)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, page)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, default=str)
