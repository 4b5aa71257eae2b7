"""TRL's training variants of known chat templates, found by what a template writes and not by its text.

The only thing of TRL that is not public API here is the place of its templates, `trl/chat_templates/*.jinja`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.chat.call_frames import FIRST, KEY, NUMBER, call
from tasks.chat.local import template_text
from tasks.contract.client import Message

if TYPE_CHECKING:
    from tasks.chat.local.format import ChatFormat

_TALK: list[Message] = [
    {"role": "system", "content": "qzsystem"},
    {"role": "user", "content": "qzuser"},
    {"role": "assistant", "content": "qzsaid"},
    {"role": "user", "content": "qzuser"},
    {"role": "assistant", "content": "qzsaid", "tool_calls": [call(FIRST, **{KEY: NUMBER})]},
    {"role": "tool", "content": "qzresult", "name": FIRST, "tool_call_id": "call_0"},
    {"role": "assistant", "content": "qzsaid"},
]


@lru_cache(maxsize=1)
def known() -> dict[str, tuple[str, str]]:
    """Name -> (the template, its training variant), of every pair that TRL has; nothing without TRL."""
    spec = importlib.util.find_spec("trl")
    if spec is None or not spec.submodule_search_locations:
        return {}
    folder = Path(next(iter(spec.submodule_search_locations))) / "chat_templates"
    pairs = {path.stem.removesuffix("_training"): path for path in sorted(folder.glob("*_training.jinja"))}
    originals = {name: folder / f"{name}.jinja" for name in pairs}
    return {
        name: (originals[name].read_text("utf-8"), path.read_text("utf-8")) for name, path in pairs.items() if originals[name].is_file()
    }


def training_variants(template: str, chat: ChatFormat) -> Iterator[tuple[str, str]]:
    """(name, template) of TRL's training variants of templates that write what `template` writes; one that is it, letter for letter,
    first."""
    literals = [one for one in (*chat.ends, chat.calls.open.strip() if chat.calls else "") if one]
    exact = [name for name, (original, _) in known().items() if original == template]
    for name in exact or known():
        original, training = known()[name]
        if name in exact or (all(_mentions(original, one) for one in literals) and _same(original, chat)):
            yield f"TRL's {name}_training", training


def _mentions(template: str, literal: str) -> bool:
    return literal.split("\n")[0] in template


def _same(original: str, chat: ChatFormat) -> bool:
    """Whether a template writes every beginning of a conversation as `chat` does."""
    for end in range(2, len(_TALK) + 1):
        prompt = _TALK[end - 1]["role"] != "assistant"
        try:
            theirs = template_text.render(
                template_text.without_clock(original), _TALK[:end], (), prompt=prompt, variables=chat.variables
            )
        except template_text.TemplateError:
            return False
        if theirs != chat.text(_TALK[:end], (), prompt=prompt):
            return False
    return True
