"""Prompts as files: Jinja templates of a folder, rendered in a sandbox. Human and agent have theirs here; other rooms have their own.

Every structured input stands in the text as a fenced block on one line, "```json NAME": a person can read it, a model can use it
and a script can parse it, so no backend needs a side channel. The one exception is the intent from which a scripted human works
(`tasks.contract.client.Request.intent`): a model that plays the human reads what a person would be told.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template

    from tasks.contract.problem import Setting


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def block(value: Any, name: str) -> str:
    """A value as a named JSON block. Keys keep their order, which may mean something (a user's first card)."""
    from jinja2 import Undefined

    if isinstance(value, Undefined):
        str(value)  # raises, naming what is missing: a filter would otherwise see a value
    return f"```json {name}\n{_line(value)}\n```"


def description(setting: Setting) -> str:
    """What a model is told of a world: what it is, and its policy's whole text."""
    policy = setting.policy.strip()
    rules = f"The policy that the assistant must keep:\n<policy>\n{policy}\n</policy>" if policy else ""
    return "\n".join(("", *filter(None, (setting.about.strip(), rules)), ""))


@cache
def _template(path: Path) -> Template:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    environment.filters |= {"block": block, "description": description, "json": _line}
    return environment.from_string(path.read_text(encoding="utf-8"))


class Prompts:
    """The templates of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str, **values: Any) -> str:
        """`name`.jinja with its values filled in; a value that the file wants and nobody gave is an error."""
        return _template(self._folder / f"{name}.jinja").render(values).strip()


render = Prompts(Path(__file__).parent)
