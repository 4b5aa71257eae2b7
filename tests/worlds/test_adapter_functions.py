"""Tools out of functions nobody wrote for it: the schema says what the function takes, and no more.

Worked by hand: an argument without a type has the schema {}, a tuple of two floats is an array of two numbers, and what arrives in the
function is the tuple.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Optional, Union

import pytest
from typing_extensions import TypedDict

from tasks.params import BadInput
from tasks.worlds.adapters.functions import tool_of
from tasks.worlds.tools import Refused, Tool


@dataclass
class Place:
    street: str
    title: str = ""


class Row(TypedDict):
    key: str
    count: int


def tool(function: Any, **known: Any) -> Tool:
    return tool_of("it", function, "write", (), "tool 'it' of world x", known)


def everything(
    untyped,  # type: ignore[no-untyped-def]
    anything: Any,
    table: dict[str, int],
    bare: dict,  # type: ignore[type-arg]
    names: list,  # type: ignore[type-arg]
    pair: tuple[float, float],
    either: Union[int, str],  # noqa: UP007
    maybe: Optional[list[str]],  # noqa: UP045
    place: Place,
    rows: list[Row],
    when: datetime,
    word: Literal["a", "b"] = "a",
    silent: int = None,  # type: ignore[assignment] # noqa: RUF013
) -> None:
    """Does it all.

    Args:
        untyped: Whatever.
        pair (tuple): Two numbers.
    """


GIVEN: dict[str, Any] = {
    "untyped": {"x": [1]},
    "anything": None,
    "table": {"a": 1},
    "bare": {"a": [None]},
    "names": [1, "x"],
    "pair": [1, 2.5],
    "either": "x",
    "maybe": None,
    "place": {"street": "Oak"},
    "rows": [{"key": "k", "count": 2}],
    "when": "2026-01-02T03:04:05",
}


def test_schemas_by_hand() -> None:
    made = tool(everything)
    assert made.description == "Does it all."
    properties = made.parameters["properties"]
    assert properties["untyped"] == {"description": "Whatever."} and properties["anything"] == {}
    assert properties["table"] == {"type": "object", "additionalProperties": {"type": "integer"}}
    assert properties["bare"] == {"type": "object", "additionalProperties": True} and properties["names"] == {
        "type": "array",
        "items": {},
    }
    numbers = [{"type": "number"}, {"type": "number"}]
    pair = {"type": "array", "prefixItems": numbers, "minItems": 2, "maxItems": 2, "description": "Two numbers."}
    assert properties["pair"] == pair
    assert properties["either"] == {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    assert properties["maybe"] == {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]}
    assert properties["when"] == {"type": "string", "format": "date-time"}
    assert properties["word"] == {"type": "string", "enum": ["a", "b"]}
    assert properties["silent"] == {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    place = {"street": {"type": "string"}, "title": {"default": "", "type": "string"}}
    assert properties["place"] == {"type": "object", "properties": place, "required": ["street"]}
    assert properties["rows"] == {"type": "array", "items": {"$ref": "#/$defs/Row"}}
    row = {"key": {"type": "string"}, "count": {"type": "integer"}}
    assert made.parameters["$defs"] == {"Row": {"type": "object", "properties": row, "required": ["key", "count"]}}
    assert made.parameters["required"] == list(GIVEN) and made.parameters["additionalProperties"] is False


def test_arguments_arrive_as_the_function_wants_them() -> None:
    clean = tool(everything).validate(GIVEN)
    assert clean["pair"] == (1, 2.5) and clean["place"] == Place("Oak") and clean["when"] == datetime(2026, 1, 2, 3, 4, 5)
    assert clean["untyped"] == {"x": [1]} and clean["untyped"]["x"] is not GIVEN["untyped"]["x"], "the caller's lists stay the caller's"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("table", {"a": "1"}, "argument 'table' at ['a'] is wrong: Input should be a valid integer, got '1'"),
        ("table", [], "argument 'table' is wrong"),
        ("pair", [1], "argument 'pair' at [1] is wrong"),
        ("either", 1.5, "argument 'either' at ['int'] is wrong"),
        ("place", {"street": 5}, "argument 'place' at ['street'] is wrong"),
        ("rows", [{"key": "k"}], "argument 'rows' at [0]['count'] is wrong: Field required"),
        ("when", "soon", "argument 'when' is wrong"),
        ("word", "c", "argument 'word' must be one of a, b"),
        ("silent", "1", "argument 'silent' must be an integer"),
        ("anything", float("nan"), "argument 'anything' must be JSON"),
        ("more", 1, "unknown argument 'more'"),
    ],
)
def test_bad_arguments_are_refused_by_name(name: str, value: Any, says: str) -> None:
    with pytest.raises(Refused) as caught:
        tool(everything).validate({**GIVEN, name: value})
    assert says in str(caught.value)


def test_known_types_count_more() -> None:
    assert tool(everything, untyped=int, table=int | str).parameters["properties"]["table"] == {
        "anyOf": [{"type": "integer"}, {"type": "string"}]
    }
    with pytest.raises(Refused, match="argument 'untyped' must be an integer"):
        tool(everything, untyped=int).validate(GIVEN)


class Opaque: ...


class Old(typing.TypedDict):
    key: str


def test_functions_that_cannot_be_called_with_json_are_named() -> None:
    async def waits() -> None: ...

    def many(*names: str) -> None: ...

    def place_only(a: int, /) -> None: ...

    def opaque(thing: Opaque) -> None: ...

    def old(row: Old) -> None: ...

    def lost(thing: NotThere) -> None: ...  # type: ignore[name-defined] # noqa: F821

    for function, says in (
        (waits, "tool 'it' of world x: is async"),
        (many, "argument 'names' is variadic positional"),
        (place_only, "argument 'a' is positional-only"),
        (opaque, "argument 'thing' has type <class 'tests.worlds.test_adapter_functions.Opaque'>, which no JSON value can be"),
        (old, "Say another one in types="),
        (lost, "its arguments cannot be read (name 'NotThere' is not defined)"),
        (print, "argument 'args' is variadic positional"),
        (iter, "its arguments cannot be read"),
    ):
        with pytest.raises(BadInput) as caught:
            tool(function)
        assert says in str(caught.value), function


def test_abstract_types_are_lists() -> None:
    def take(some: Sequence[int], others: Iterable[str] = ()) -> None: ...

    made = tool(take)
    assert made.parameters["properties"]["some"] == {"type": "array", "items": {"type": "integer"}}
    assert made.validate({"some": [1]}) == {"some": [1]}
