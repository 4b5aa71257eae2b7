"""Prompts of the generate room, one Jinja file each, rendered in a sandbox (`render`).

Every structured input stands in the text as a fenced block on one line, "```json NAME": a person can read it, a model can use it
and a script can parse it, so no backend needs a side channel.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, Undefined
from jinja2.sandbox import SandboxedEnvironment

_FOLDER = Path(__file__).parent


def block(value: Any, name: str) -> str:
    """A value as a named JSON block. Keys keep their order, which may mean something (a customer's first card)."""
    if isinstance(value, Undefined):
        str(value)  # raises, naming what is missing: a filter would otherwise see a value
    return f"```json {name}\n{json.dumps(value, ensure_ascii=False)}\n```"


@cache
def _template(name: str) -> Template:
    environment = SandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    environment.filters["block"] = block
    return environment.from_string((_FOLDER / f"{name}.jinja").read_text(encoding="utf-8"))


def render(name: str, **values: Any) -> str:
    """The prompt `name` with its values filled in; a value that the file wants and nobody gave is an error."""
    return _template(name).render(values).strip()
