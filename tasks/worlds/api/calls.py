"""One tool call at the edge of a world. Model output is data (law 9): whatever arrives is answered, nothing that fails leaves a trace.

Refused before the tool sees them: arguments that are no JSON (half characters, numbers that are not finite or too large for JSON,
more than 64 levels), and what the tool's own schema does not allow. A failure of the tool's code becomes an answer as well.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

from tasks.contract.params import nearest
from tasks.contract.problem import Illustrated, ToolResult
from tasks.contract.values import canonical, canonical_json, half_character, unfit
from tasks.worlds.api.state import State
from tasks.worlds.api.tools import COMPARED, Refused, Tool, Unreachable

LONGEST = 1000
"""Characters of an error; ours: a model reads it, and it may quote an argument of any length."""
ANSWER = 30_000
"""Characters of an answer by default; ours: some 8,000 tokens, a quarter of a common context."""
CUT = "the answer was cut"
"""How the last line of a cut answer begins."""


def run(tool: Tool, function: Callable[..., Any], state: State, arguments: Any, longest: int = ANSWER) -> ToolResult:
    """Validate and run one call. When it is refused, or the tool's code fails, the state is as before and the answer says why.

    longest: characters of an answer; of a longer one the beginning is kept, and it says what was left out. Raises Unreachable.
    """
    if mistake := unfit(arguments):
        return error(mistake)
    done = False
    state.begin(tool.kind)
    try:
        value = function(**tool.validate(arguments))
        value, images = value if isinstance(value, Illustrated) else (value, ())
        content = answer(value)
        done = True
    except Refused as refusal:
        return error(str(refusal))
    except Unreachable:
        raise
    except (Exception, SystemExit) as failure:  # the edge to a world's own code: its bug must not end the run
        return error(f"tool failure: {type(failure).__name__}: {failure}")
    finally:
        state.finish(keep=done)
    return ToolResult(True, content if len(content) <= longest else cut(content, longest, tool.name), images)


def cut(content: str, longest: int, tool: str) -> str:
    """The beginning of an answer that no model should read whole, with what was left out. That it was cut is logged, once a tool."""
    _tell(tool, longest)
    return f"{content[:longest]}\n[{CUT}: {len(content) - longest:,} of {len(content):,} characters are left out; ask for less]"


@functools.lru_cache(maxsize=256)
def _tell(tool: str, longest: int) -> None:
    told = "tool %r gave an answer of more than %d characters, and the rest was cut (worlds.freeze.longest_answer)"
    logging.getLogger(__name__).warning(told, tool, longest)


def unknown(name: Any, known: Iterable[str]) -> ToolResult:
    """The answer to a call of a tool that there is not."""
    if name is not None and type(name) is not str:
        return error(f"a tool's name must be a string, got {type(name).__name__}")
    return error(f"no tool {name!r}.{nearest(name, known) if name and len(name) <= COMPARED else ''}")


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
