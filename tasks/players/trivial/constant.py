"""`Constant`: takes the same turn every time. Doing nothing, always refusing or always handing over must fail each problem."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.contract.agent import Turn, World
from tasks.contract.client import Message
from tasks.worlds.api.arguments import arguments_of

REFUSAL = "Sorry, I cannot help you with that. Anything else?"
CLOSING = "Anything else?"


class Constant:
    """Says `line` in every turn, or, without a line, calls the world's hand-over at once.

    choice: which value it takes for each argument of the hand-over that has an enumeration (0 is the first).
    """

    capacity = 256

    def __init__(self, name: str, line: str = "", choice: int = 0) -> None:
        self.name = name
        self._line, self._choice = line, choice
        self._owed: dict[str, Turn] = {}

    def send(self, conversation: str, messages: Sequence[Message], world: World, seed: int) -> None:
        """Owe the same turn as always."""
        message = {"role": "assistant", "content": self._line} if self._line else _hand_over(world, self._choice)
        self._owed[conversation] = Turn(message)

    def resume(self, conversation: str, messages: Sequence[Message], turns: Sequence[Turn]) -> None:
        """Nothing: it reads no conversation."""

    def poll(self) -> list[tuple[str, Turn]]:
        """Every turn that is owed, in the order in which they were sent."""
        owed, self._owed = self._owed, {}
        return list(owed.items())

    def close(self, conversation: str) -> None:
        """Forget the conversation."""
        self._owed.pop(conversation, None)


def do_nothing() -> Constant:
    """Changes, looks up and tells nothing; it closes, so that the human has no reason to go on."""
    return Constant("do_nothing", line=CLOSING)


def refuses() -> Constant:
    """An agent that refuses whatever it is asked."""
    return Constant("always_refuses", line=REFUSAL)


def hands_over(choice: int = 0) -> Constant:
    """Always hands over at once."""
    return Constant("always_hands_over", choice=choice)


def _hand_over(world: World, choice: int) -> Message:
    """A call of the world's hand-over; a refusal in a world that has none."""
    tool = world.tools.get(world.conventions.hand_over)
    if tool is None:
        return {"role": "assistant", "content": REFUSAL}
    schemas = arguments_of(tool.parameters)
    arguments = {name: _value(schemas.get(name, {}), choice) for name in tool.parameters["required"]}
    function = {"name": tool.name, "arguments": arguments}
    return {"role": "assistant", "content": "", "tool_calls": [{"id": "call_0", "type": "function", "function": function}]}


def _value(schema: dict[str, Any], choice: int) -> Any:
    if "enum" in schema:
        return schema["enum"][choice % len(schema["enum"])]
    if "const" in schema:
        return schema["const"]
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            return _value(schema[key][0], choice)
    kinds = schema.get("type", "string")
    kind = kinds[0] if isinstance(kinds, list) else kinds
    return {"integer": 1, "number": 1, "boolean": True, "array": [], "object": {}, "null": None}.get(kind, "help")
