"""What a tool does, guessed before anything is called: from what the API says of it, else from its name. The user corrects it.

A tool that may change something counts as one that does: a write that changes nothing is refused as a problem later, while a change by
a tool that only reads would be refused in a conversation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tasks.contract.problem import Kind

READING = frozenset(
    """calculate check compare compute convert count describe echo estimate explain fetch find get has help info is list look lookup
    peek ping preview query quote read search show status summarize think validate verify view""".split()  # noqa: SIM905
)
"""First words of names that only look."""
LEAVING = ("escalate", "hand_off", "hand_over", "handoff", "handover", "human", "a_person", "to_person", "to_agent", "to_operator")
"""Parts of names that hand a conversation over to a person."""


@dataclass(frozen=True)
class Guess:
    """What a tool does, and why that is believed."""

    name: str
    kind: Kind
    why: str


def guess(name: str, read_only: bool | None = None) -> Guess:
    """What one tool does. read_only: what an MCP server says of it (`readOnlyHint`, `destructiveHint`).

    >>> guess("getOrder").kind, guess("cancel_order").kind, guess("call_a_person").kind
    ('read', 'write', 'end')
    >>> guess("order_status", read_only=True).why
    'the server says that it only reads'
    """
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().replace("-", "_")
    if any(part in snake for part in LEAVING):
        return Guess(name, "end", "its name hands over to a person")
    if read_only is True:
        return Guess(name, "read", "the server says that it only reads")
    if read_only is False:
        return Guess(name, "write", "the server says that it changes something")
    first = re.split(r"[^a-z0-9]+", snake.strip("_"))[0]
    if first in READING:
        return Guess(name, "read", f"its name begins with {first!r}")
    return Guess(name, "write", f"its name does not say that it only looks ({first!r})")


def listed(guesses: Iterable[Guess]) -> list[str]:
    """The guesses as lines for people, one for each kind of tool."""
    kinds = {"read": "only look something up", "write": "change something", "end": "hand over to a person and end the conversation"}
    guesses = list(guesses)
    return [f"  {what}: {', '.join(one.name for one in guesses if one.kind == kind) or 'none'}" for kind, what in kinds.items()]
