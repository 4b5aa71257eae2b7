"""Tools: the schema is derived from hints and docstring, and a call is checked strictly against it.

Worked by hand: `move(self, booking_id: str, bags: int = 0, cabin: Literal["a", "b"] | None = None)` has three properties, of which only
booking_id is required; {"booking_id": "B1", "bags": 2.0} is accepted as {"booking_id": "B1", "bags": 2}.
"""

from __future__ import annotations

from typing import Any, Literal

import pytest

from tasks.contract.params import BadInput
from tasks.worlds.api.tools import Refused, end, read, tools_of, write


class Desk:
    @read(produces=("row",))
    def look(self, key: str) -> str:
        """Look a row up,
        wherever it lies.

        Args:
            key: The row's key,
                such as K1.

        Returns:
            The row.
        """
        return key

    @write()
    def move(self, booking_id: str, bags: int = 0, cabin: Literal["a", "b"] | None = None) -> None:
        """Move a booking.

        Args:
            booking_id: Which one.
            bags (int): How many.
            cabin: Where.
        """

    @write(consumes=("row",))
    def mixed(self, price: float, ok: bool, names: list[str]) -> None:
        """All other types.

        Args:
            price: A number.
            ok: A flag.
            names: Several.
        """

    @end()
    def stop(self) -> None:
        """Stop."""


TOOLS = tools_of(Desk)


def test_schema_by_hand() -> None:
    assert list(TOOLS) == ["look", "move", "mixed", "stop"]
    assert TOOLS["look"].schema() == {
        "type": "function",
        "function": {
            "name": "look",
            "description": "Look a row up, wherever it lies.",
            "parameters": {
                "type": "object",
                "properties": {"key": {"type": "string", "description": "The row's key, such as K1."}},
                "required": ["key"],
                "additionalProperties": False,
            },
        },
    }
    move = TOOLS["move"].parameters
    assert move["required"] == ["booking_id"]
    assert move["properties"]["cabin"]["anyOf"] == [{"type": "string", "enum": ["a", "b"]}, {"type": "null"}]
    assert TOOLS["mixed"].parameters["properties"]["names"]["items"] == {"type": "string"}
    assert [TOOLS[name].kind for name in TOOLS] == ["read", "write", "write", "end"]
    assert TOOLS["look"].produces == ("row",)
    assert TOOLS["move"].consumes == ("booking_id", "bags", "cabin") and TOOLS["mixed"].consumes == ("row",)


def test_valid_arguments_become_canonical() -> None:
    assert TOOLS["move"].validate({"bags": 2.0, "booking_id": "B1"}) == {"booking_id": "B1", "bags": 2}
    assert TOOLS["move"].validate({"booking_id": "B1", "cabin": None}) == {"booking_id": "B1", "cabin": None}
    assert TOOLS["mixed"].validate({"price": 3, "ok": True, "names": ["x"]}) == {"price": 3, "ok": True, "names": ["x"]}


@pytest.mark.parametrize(
    ("tool", "arguments", "says"),
    [
        ("look", ["K1"], "arguments must be a JSON object"),
        ("look", {}, "argument 'key' is missing"),
        ("look", {"key": 1}, "argument 'key' must be a string, got 1"),
        ("look", {"key": "K1", "kee": 1}, "unknown argument 'kee'. Did you mean 'key'?"),
        ("move", {"booking_id": "B1", "bags": True}, "argument 'bags' must be an integer, got True"),
        ("move", {"booking_id": "B1", "bags": 2.5}, "argument 'bags' must be an integer, got 2.5"),
        ("move", {"booking_id": "B1", "cabin": "c"}, "argument 'cabin' must be one of a, b, got 'c'"),
        ("mixed", {"price": "3", "ok": True, "names": []}, "argument 'price' must be a number, got '3'"),
        ("mixed", {"price": float("nan"), "ok": True, "names": []}, "argument 'price' must be a finite number"),
        ("mixed", {"price": 3, "ok": 1, "names": []}, "argument 'ok' must be true or false, got 1"),
        ("mixed", {"price": 3, "ok": True, "names": "x"}, "argument 'names' must be a list, got 'x'"),
        ("mixed", {"price": 3, "ok": True, "names": [1]}, "argument 'names' must be a string, got 1"),
    ],
)
def test_bad_arguments_are_refused_by_name(tool: str, arguments: Any, says: str) -> None:
    with pytest.raises(Refused) as caught:
        TOOLS[tool].validate(arguments)
    assert says in str(caught.value)


def _declared(function: Any) -> type:
    return type("Broken", (), {"tool": read()(function)})


def test_bad_declarations_are_named() -> None:
    def no_docstring(self: Any, key: str) -> None: ...

    def no_hint(self: Any, key) -> None:  # type: ignore[no-untyped-def]
        """Look.

        Args:
            key: A key.
        """

    def no_argument(self: Any, key: str) -> None:
        """Look."""

    def wrong_type(self: Any, key: dict) -> None:  # type: ignore[type-arg]
        """Look.

        Args:
            key: A key.
        """

    for function, says in [
        (no_docstring, "no docstring"),
        (no_hint, "argument 'key' has no type hint"),
        (no_argument, "argument 'key' is not described under 'Args:'"),
        (wrong_type, "Allowed: str, int, float, bool, Literal, list of these"),
    ]:
        with pytest.raises(BadInput, match=r"tool Broken.tool") as caught:
            tools_of(_declared(function))
        assert says in str(caught.value)
    with pytest.raises(BadInput, match=r"no tools"):
        tools_of(type("Empty", (), {}))
