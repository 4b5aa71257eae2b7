"""Tools out of functions nobody wrote for it: the schema says what the function takes, and no more.

Worked by hand: an argument without a type has the schema {}, a tuple of two floats is an array of two numbers, and what arrives in the
function is the tuple.
"""

from __future__ import annotations

import typing
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Optional, Union

import pytest
from pydantic import Field
from typing_extensions import Doc, TypedDict

from tasks.contract.params import BadInput
from tasks.worlds.adapters.functions import callee_of, tool_of
from tasks.worlds.api.tools import Refused, Tool


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


def test_functions_that_cannot_be_called_with_json_are_named() -> None:
    def one_by_one() -> Iterator[int]:
        yield 1

    async def yields() -> AsyncIterator[int]:
        yield 1

    def opaque(thing: Opaque) -> None: ...

    def lost(thing: NotThere) -> None: ...  # type: ignore[name-defined] # noqa: F821

    for function, says in (
        (yields, "tool 'it' of world x: yields its answer piece by piece"),
        (one_by_one, "Offer a method that returns it, such as list"),
        (opaque, "argument 'thing' has type <class 'tests.worlds.test_adapter_functions.Opaque'>, which no JSON value can be"),
        (lost, "its arguments cannot be read (name 'NotThere' is not defined)"),
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


class Inner(typing.TypedDict):
    count: int


class Old(typing.TypedDict, total=False):
    """One of typing, which pydantic takes from Python 3.12 on."""

    key: typing.Required[str]
    inner: list[Inner]
    above: Optional[Old]  # noqa: UP045


class Mixed(TypedDict):
    old: Old
    more: NotRequired[int]


@dataclass
class Holder:
    old: Old


class Triple(NamedTuple):
    inner: Inner


class Colour(StrEnum):
    RED = "red"


def modern(
    limited: Annotated[int, Field(ge=1, le=5, description="From one to five.")],
    told: Annotated[str, "In plain words."],
    documented: Annotated[str, Doc("In a Doc.")] = "",
    shaped: Annotated[str, Field(pattern="^x")] = "x",
    fielded: int = Field(3, ge=2, description="By a field."),
    made: list[int] = Field(default_factory=list),
    inner: list[Annotated[int, Field(ge=1)]] = [],  # noqa: B006 - as it is found
    perhaps: Annotated[Optional[int], Field(ge=1)] = None,  # noqa: UP045
    old: Optional[Old] = None,  # noqa: UP045
    mixed: Mixed | None = None,
    holder: Holder | None = None,
    triple: Triple | None = None,
    colour: Colour = Colour.RED,
    day: date = date.min,
    odd: float = float("nan"),
    thing: object = object(),
) -> dict[str, Any]:
    return dict(locals())


def test_what_hints_say_besides_the_type() -> None:
    made = tool(modern)
    shown = made.parameters["properties"]
    assert shown["limited"] == {"type": "integer", "minimum": 1, "maximum": 5, "description": "From one to five."}
    assert shown["told"] == {"type": "string", "description": "In plain words."} and shown["documented"]["description"] == "In a Doc."
    assert shown["fielded"] == {"type": "integer", "minimum": 2, "description": "By a field."}
    assert made.parameters["required"] == ["limited", "told"]
    assert made.parameters["$defs"]["Old"]["required"] == ["key"] and "required" in made.parameters["$defs"]["Inner"]


def test_typed_dicts_of_typing_are_taken() -> None:
    row = {"key": "k", "inner": [{"count": 1}], "above": {"key": "z"}}
    given = {"old": row, "mixed": {"old": row}, "holder": {"old": row}, "triple": [{"count": 1}], "colour": "red"}
    clean = tool(modern).validate({"limited": 1, "told": "", **given})
    assert clean["old"] == row and clean["mixed"] == {"old": row} and clean["holder"] == Holder(row)  # type: ignore[arg-type]
    assert clean["triple"] == Triple({"count": 1}) and clean["colour"] is Colour.RED


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"limited": 9}, "'limited' is wrong: Input should be less than or equal to 5, got 9"),
        ({"shaped": "y"}, "'shaped' is wrong: String should match pattern '^x'"),
        ({"fielded": 1}, "'fielded' is wrong"),
        ({"inner": [0]}, "'inner' at [0] is wrong"),
        ({"perhaps": 0}, "'perhaps' is wrong"),
        ({"old": {}}, "'old' at ['key'] is wrong: Field required"),
        ({"old": {"key": "k", "inner": [{}]}}, "'old' at ['inner'][0]['count'] is wrong: Field required"),
        ({"old": {"key": "k", "above": {}}}, "'old' at ['above']['key'] is wrong: Field required"),
        ({"mixed": {}}, "'mixed' at ['old'] is wrong: Field required"),
        ({"holder": {"old": {}}}, "'holder' at ['old']['key'] is wrong: Field required"),
    ],
)
def test_limits_of_hints_are_checked(given: dict[str, Any], says: str) -> None:
    with pytest.raises(Refused) as caught:
        tool(modern).validate({"limited": 1, "told": "", **given})
    assert says in str(caught.value)


def played(function: Any, given: dict[str, Any]) -> Any:
    placed, named = callee_of(function).arguments(tool(function).validate(given))
    return function(*placed, **named)


def test_fields_as_defaults_are_values() -> None:
    first, second = (played(modern, {"limited": 1, "told": ""}) for _ in range(2))
    assert first["fielded"] == 3 and first["made"] == [] and first["made"] is not second["made"]
    assert played(modern, {"limited": 1, "told": "", "fielded": 7, "made": [1]})["made"] == [1]


def test_every_way_to_take_arguments() -> None:
    def take(first, second: int = 2, /, third: int = 3, *names: str, last: int, **more: float) -> Any:  # type: ignore[no-untyped-def]
        return first, second, third, names, last, more

    assert tool(take).parameters == {
        "type": "object",
        "properties": {
            **{"first": {}, "second": {"type": "integer"}, "third": {"type": "integer"}},
            "names": {"type": "array", "items": {"type": "string"}},
            "last": {"type": "integer"},
        },
        "required": ["first", "last"],
        "additionalProperties": {"type": "number"},
    }
    assert played(take, {"first": 1, "last": 4}) == (1, 2, 3, (), 4, {})
    assert played(take, {"first": 1, "last": 4, "names": ["a", "b"], "more": 1.5}) == (1, 2, 3, ("a", "b"), 4, {"more": 1.5})
    with pytest.raises(Refused, match="argument 'any' must be a number"):
        tool(take).validate({"first": 1, "last": 4, "any": "x"})
