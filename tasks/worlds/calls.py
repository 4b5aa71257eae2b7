"""One tool call at the edge of a world. Model output is data (law 9): whatever arrives is answered, nothing that fails leaves a trace.

Refused before the tool sees them: arguments that are no JSON (half characters, numbers that are not finite or too large for JSON,
more than 64 levels), and what the tool's own schema does not allow. A failure of the tool's code becomes an answer as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

from tasks.params import nearest
from tasks.worlds import ToolResult
from tasks.worlds.state import State
from tasks.worlds.tools import Refused, Tool
from tasks.worlds.values import canonical, canonical_json, frozen, half_character

LONGEST = 1000
"""Characters of an error; ours: a model reads it, and it may quote an argument of any length."""
NAME = 100
"""Characters of a name that is compared with the known ones: the comparison takes time with the square of the length."""


def run(tool: Tool, function: Callable[..., Any], state: State, arguments: Any) -> ToolResult:
    """Validate and run one call. When it is refused, or the tool's code fails, the state is as before and the answer says why."""
    if mistake := unfit(arguments):
        return error(mistake)
    done = False
    state.begin(tool.kind)
    try:
        content = answer(function(**tool.validate(arguments)))
        done = True
    except Refused as refusal:
        return error(str(refusal))
    except (Exception, SystemExit) as failure:  # the edge to a world's own code: its bug must not end the run
        return error(f"tool failure: {type(failure).__name__}: {failure}")
    finally:
        state.finish(keep=done)
    return ToolResult(True, content)


def unknown(name: Any, known: Iterable[str]) -> ToolResult:
    """The answer to a call of a tool that there is not."""
    if name is not None and type(name) is not str:
        return error(f"a tool's name must be a string, got {type(name).__name__}")
    return error(f"no tool {name!r}.{nearest(name, known) if name and len(name) <= NAME else ''}")


def unfit(arguments: Any) -> str:
    """Why no tool can take these arguments, or ""."""
    if not isinstance(arguments, dict):
        return "arguments must be a JSON object"
    try:
        frozen(arguments)
    except (TypeError, ValueError) as mistake:
        return f"arguments: {mistake}"
    long = next((name for name in arguments if len(name) > NAME), None)
    return f"unknown argument {long!r}" if long else ""


def answer(value: Any) -> str:
    """What a tool returned as text: strings as they are, all else as JSON, sets as sorted arrays and decimals as numbers.

    Raises TypeError or ValueError when it is neither.
    """
    text = value if isinstance(value, str) else _encode(value)
    if not text.isascii() and (wrong := half_character(text)):
        raise ValueError(f"an answer with {wrong}")
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=canonical_json)
    if isinstance(value, Decimal):
        number = canonical(value)
        return number if isinstance(number, int | float) else str(value)
    raise TypeError(f"a tool must return text or JSON values, got {type(value).__name__}")


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_plain).encode


def error(message: str) -> ToolResult:
    """The answer to a call that was not carried out; it names half characters, and quotes only the beginning of a long text."""
    if len(message) > LONGEST:
        message = f"{message[:LONGEST]} ... ({len(message) - LONGEST:,} more characters)"
    if not message.isascii():
        message = message.encode("utf-8", "backslashreplace").decode()
    return ToolResult(False, _encode({"error": message}))
