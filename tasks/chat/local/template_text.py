"""A chat template as text: rendering in the sandbox of transformers, with the clock taken out."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.chat.local import time_limit
from tasks.chat.local.time_limit import TooLong, limited
from tasks.contract.client import Message
from tasks.contract.params import BadInput

DAY = datetime.date(2024, 7, 26)
"""What day it is in every prompt of a template that reads the clock; ours: Llama 3.1's own default."""
_CLOCK = re.compile(r"strftime_now\(\s*(['\"])(.*?)\1\s*\)")


class TemplateError(ValueError):
    """A template cannot render a conversation; the message is the template's own."""


def without_clock(template: str) -> str:
    """The template with `DAY` wherever it asks for the date: prompts of two days must be the same bytes."""
    return _CLOCK.sub(lambda found: repr(DAY.strftime(found[2])), template)


def reads_clock(template: str) -> bool:
    """Whether the template asks for the date."""
    return bool(_CLOCK.search(template))


def render(
    template: str,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] = (),
    *,
    prompt: bool,
    variables: Mapping[str, Any],
) -> str:
    """The text of a conversation. prompt: it ends by asking the assistant for a turn. variables: special tokens and options.

    The same as `apply_chat_template(tokenize=False)`, without its copies of every message. Raises TemplateError with what the template
    says when it cannot render this, BadInput for one that does not come to an end.
    """
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        with limited():
            compiled = _compile_jinja_template(template)
            return str(compiled.render(messages=list(messages), tools=list(tools) or None, add_generation_prompt=prompt, **variables))
    except TooLong:
        raise BadInput(
            f"its chat template does not come to an end: one conversation of {len(messages)} messages took more than "
            f"{time_limit.SECONDS:g} s. Look for loops within loops, or take the template of the model's own publisher."
        ) from None
    except Exception as error:  # a template is a program that somebody else wrote: whatever it raises is its refusal
        raise TemplateError(f"{type(error).__name__}: {error}") from error
