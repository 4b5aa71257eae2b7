"""The one grading of a conversation: state, outputs, required calls, policy (APIGen-MT section 3.1; tau-bench's reward).

Departures from tau-bench: 1. both sides of the output check are normalised the same way and matched on word boundaries, so "5"
is not found in "15" and "1,234" equals "1234.0". 2. The ground truth is replayed on a fresh fork, never on the live world.
3. Required calls and policy predicates are parts of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tasks.worlds import Action, Trajectory
from tasks.worlds.state import canonical

_WORD = re.compile(r"(?<![a-z0-9.])-?\d+(?:\.\d+)?(?![a-z0-9])|[a-z0-9]+")
_THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])")
_DASH_IN_WORD = re.compile(r"(?<=\w)-")


def words(text: str) -> list[str]:
    """The words of a text in canonical form: lower case, no punctuation, 1,234.50 as 1234.5, 25.0 as 25.

    >>> words("Order W4821: $1,234.50!")
    ['order', 'w4821', '1234.5']
    """
    text = _THOUSANDS.sub(lambda found: found[0].replace(",", ""), text.lower())
    text = _DASH_IN_WORD.sub(" ", text)
    return [_number(word) for word in _WORD.findall(text)]


def _number(word: str) -> str:
    if "." not in word:
        return word
    whole, _, part = word.partition(".")
    part = part.rstrip("0")
    return f"{whole}.{part}" if part else whole


def says(replies: Iterable[str], output: str) -> bool:
    """Whether some reply holds the words of `output` in a row. An output without words is never said."""
    wanted = words(output)
    size = len(wanted)
    if not size:
        return False
    for reply in replies:
        found = words(reply)
        if any(found[start : start + size] == wanted for start in range(len(found) - size + 1)):
            return True
    return False


def replies_of(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the agent said to the user."""
    return [str(message.get("content") or "") for message in messages if message["role"] == "assistant"]


def called(calls: Iterable[tuple[Action, Any]], wanted: Action) -> bool:
    """Whether a call of this name succeeded with at least these arguments (25 equals 25.0)."""
    return any(result.ok and action.name == wanted.name and _holds(action.arguments, wanted.arguments) for action, result in calls)


def _holds(given: Any, wanted: Mapping[str, Any]) -> bool:
    if not isinstance(given, Mapping) or not all(name in given for name in wanted):
        return False
    return all(canonical(given[name]) == canonical(value) for name, value in wanted.items())


def outputs_said(trajectory: Trajectory) -> bool:
    """Every expected output appears in some reply of the agent."""
    replies = replies_of(trajectory.messages)
    return all(says(replies, output) for output in trajectory.problem.outputs)


def required_called(trajectory: Trajectory) -> bool:
    """Every required call succeeded."""
    return all(called(trajectory.calls, action) for action in trajectory.problem.required)
