"""Plain data out of any values: equal states have equal texts, different ones different texts, and cycles end.

Worked by hand: a folder that knows its parent is shown with the number of holders up to it; {1: "a"} and {"1": "a"} differ.
"""

from __future__ import annotations

import datetime
import enum
import json
import pickle
import random
from collections import deque
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import attrs
import numpy
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import v1

from tasks.worlds.adapters.plain_data import NotPlain, View
from tasks.worlds.adapters.state_content import text_diff
from tasks.worlds.api.state import canonical_json


class Folder:
    def __init__(self, name: str, parent: Folder | None = None) -> None:
        self.name, self.parent, self.inside = name, parent, {}
        if parent is not None:
            parent.inside[name] = self


class Slotted:
    __slots__ = ("__secret", "a", "unset")

    def __init__(self) -> None:
        self.a, self.__secret = 1, 2


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


@dataclass
class Point:
    x: float
    _cache: list[int] = field(default_factory=list)


def plain(value: Any, *leave_out: str) -> Any:
    return View(leave_out).plain(value)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({1: "a", "1": "b", (1, 2): "c", "(": "d"}, {"(1)": "a", "1": "b", "([1,2])": "c", '("(")': "d"}),
        (Point(1.5), {"(type)": "Point", "x": 1.5, "_cache": []}),
        (Slotted(), {"(type)": "Slotted", "_Slotted__secret": 2, "a": 1}),
        ([Colour.RED, Level.LOW, {Colour.RED}], ["Colour.RED", "Level.LOW", ["Colour.RED"]]),
        ((b"\x01", datetime.date(2026, 1, 2), datetime.timedelta(minutes=1)), ["(bytes 01)", "2026-01-02", 60.0]),
        ([float("nan"), float("-inf"), Decimal("NaN"), Decimal("1.50")], ["(nan)", "(-inf)", "(NaN)", Decimal("1.50")]),
        ({"s": {3, 1, 2}, "f": frozenset(), "p": PurePosixPath("a/b"), "e": ...}, {"s": [1, 2, 3], "f": [], "p": "a/b", "e": "..."}),
        (SimpleNamespace(a=[None, True]), {"(type)": "SimpleNamespace", "a": [None, True]}),
    ],
)
def test_by_hand(value: Any, shown: Any) -> None:
    assert plain(value) == shown and canonical_json(plain(value)) == canonical_json(shown)


def test_cycles_are_levels_up() -> None:
    root = Folder("root")
    Folder("leaf", Folder("mid", root))
    leaf = plain(root)["inside"]["mid"]["inside"]["leaf"]
    assert leaf == {"(type)": "Folder", "name": "leaf", "parent": {"(up)": 3}, "inside": {}}, "leaf, the dict that holds it, mid"
    shared = ["x"]
    assert plain([shared, shared]) == [["x"], ["x"]], "what is held twice is no cycle"
    loop: list[Any] = []
    loop.append(loop)
    assert plain(loop) == [{"(up)": 1}]


def test_left_out_names() -> None:
    value = {"_id": 1, "log": [2], "deep": [Point(3.0, [4])]}
    assert plain(value, "log", "_*") == {"deep": [{"(type)": "Point", "x": 3.0}]}
    assert View(inside=False).plain(value) == {"_id": 1, "log": [2], "deep": [{"x": 3.0}]}


def test_what_is_no_data_is_named_by_its_place() -> None:
    for value, place in (
        ({"a": [1, {"b": len}]}, r"a\[1\].b holds a builtin_function_or_method"),
        (iter([1]), r"the value holds a list_iterator"),
        (Point(lambda: 1), r"x holds a function"),
        ([{1: Point}], r"\[0\].\(1\) holds a type"),
    ):
        with pytest.raises(NotPlain, match=place):
            plain(value)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(NotPlain, match="the value holds more levels than can be compared"):
        plain(deep)


def test_a_generator_is_the_numbers_that_it_will_give() -> None:
    one, two = random.Random(1), random.Random(1)
    assert plain({"r": one}) == plain({"r": two})
    two.random()
    assert plain({"r": one}) != plain({"r": two})


KEYS = st.one_of(st.text(max_size=3), st.integers(-3, 3), st.tuples(st.integers(0, 2)))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=3),
        st.builds(Point, x=inner),
        st.sets(st.integers(0, 9), max_size=3),
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(VALUES)
def test_a_copy_has_the_same_text(value: Any) -> None:
    assert canonical_json(plain(value)) == canonical_json(plain(pickle.loads(pickle.dumps(value))))


@settings(deadline=None)
@given(st.dictionaries(KEYS, st.integers(), min_size=2, max_size=5))
def test_keys_of_different_kinds_stay_apart_and_order_does_not_matter(value: dict[Any, int]) -> None:
    assert len(plain(value)) == len(value)
    turned = dict(reversed(value.items()))
    assert canonical_json(plain(turned)) == canonical_json(plain(value))


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(0, 3), st.sampled_from(["", "a"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3)),
    max_leaves=6,
)


@settings(deadline=None)
@given(JSON, JSON)
def test_a_difference_is_empty_for_equal_texts_alone(one: Any, other: Any) -> None:
    before, after = canonical_json(one), canonical_json(other)
    assert (text_diff(before, after) == "") == (before == after) and text_diff(before, before) == ""


def test_differences_by_hand() -> None:
    before = json.dumps({"a": {"x": 1, "y": [1, 2]}, "gone": True})
    after = json.dumps({"a": {"x": 2, "y": [1]}, "new": None})
    assert text_diff(before, after).splitlines() == [
        *("- a.x: 1", "+ a.x: 2", "- a.y[1]: 2", "- gone: true", "+ new: null"),
    ]
    assert text_diff(before, after, 1) == "- a.x: 1" and text_diff("1", "true") == "- state: 1\n+ state: true"


class Offer(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    name: str
    price: float = 1.0
    _seen: int = 0

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def label(self) -> str:
        return f"{self.name}!"


class Secretive:
    def __init__(self) -> None:
        self._inside = 1


class Speaking(Secretive):
    def __str__(self) -> str:
        return "all is well"


def test_equal_models_are_equal_states() -> None:
    """Which fields were named when a model was made is no part of it; extra and private fields are."""
    one, two = Offer(name="a"), Offer(name="a", price=1.0)
    assert plain(one) == plain(two) == {"(type)": "Offer", "name": "a", "price": 1.0, "_seen": 0}
    assert plain(Offer(name="a", more=2)) == {**plain(one), "more": 2}  # type: ignore[call-arg]
    one._seen = 1
    assert plain(one) != plain(two)


@dataclass
class Priced:
    """A dataclass with a field that it does not compare, and what it works out of the others."""

    net: float
    seen: int = field(default=0, compare=False)

    @cached_property
    def gross(self) -> float:
        return self.net * 1.2


@attrs.define
class Boxed:
    size: int
    looks: int = attrs.field(default=0, eq=False)


class Mapped(pydantic.BaseModel):
    """As SQLModel has it: what the session keeps lies beside the fields."""

    name: str

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.__dict__["_sa_instance_state"] = object()

    @cached_property
    def long(self) -> str:
        return self.name * 2


class Older(v1.BaseModel):
    name: str
    price: float = 1.0
    _seen: int = v1.PrivateAttr(0)


def test_models_count_by_their_declared_fields() -> None:
    for one, two, declared in (
        (Priced(1.0), Priced(1.0, seen=3), {"net": 1.0}),
        (Boxed(1), Boxed(1, looks=2), {"size": 1}),
        (Mapped(name="a"), Mapped.model_construct(name="a"), {"name": "a"}),
        (Older(name="a"), Older(name="a", price=1.0), {"name": "a", "price": 1.0, "_seen": 0}),
    ):
        getattr(one, "gross", None), getattr(one, "long", None)  # worked out and kept in one of the two
        assert plain(one) == plain(two) == {"(type)": type(one).__name__, **declared}
        assert canonical_json(plain(one)) == canonical_json(plain(two))
    assert View(inside=False).plain(Priced(1.0, seen=3)) == {"net": 1.0, "seen": 3}, "an answer shows every field"
    assert View(inside=False).plain(Older(name="a")) == {"name": "a", "price": 1.0}


def test_patterns_and_steps_by_path() -> None:
    value = {"orders": {"o1": {"at": 1, "total": 2.0000001, "log": [{"at": 2, "by": "x"}]}}, "at": 3, "n": 7}
    assert plain(value, "orders.*.at") == {"orders": {"o1": {"total": 2.0000001, "log": [{"at": 2, "by": "x"}]}}, "at": 3, "n": 7}
    assert plain(value, "orders.*.log.at", "n")["orders"]["o1"] == {"at": 1, "total": 2.0000001, "log": [{"by": "x"}]}
    rounded = View(rounded=(("orders.*.total", 0.01), ("n", 5)))
    assert rounded.plain(value)["orders"]["o1"]["total"] == 2 and rounded.plain(value)["n"] == 5 and rounded.plain(value)["at"] == 3
    assert rounded.plain({"n": Decimal("12.6")}) == {"n": 15} and rounded.plain({"n": True}) == {"n": True}


@pytest.mark.parametrize(
    ("value", "state", "answer"),
    [
        (Colour.RED, "Colour.RED", 1),
        ({None: "b", True: "c", 2.5: "d"}, {"(null)": "b", "(true)": "c", "(2.5)": "d"}, {"null": "b", "true": "c", "2.5": "d"}),
        ({1: "a", "1": "b"}, {"(1)": "a", "1": "b"}, {"(1)": "a", "1": "b"}),
        (numpy.float64("nan"), "(nan)", "NaN"),
        (numpy.int64(3), 3, 3),
        (numpy.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]], [[1, 2], [3, 4]]),
        ([float("inf"), 0.5], ["(inf)", 0.5], ["Infinity", 0.5]),
        (b"caf\xc3\xa9", "(bytes 636166c3a9)", "café"),
        (b"\xff", "(bytes ff)", "(bytes ff)"),
        (deque([1, 2]), [1, 2], [1, 2]),
        ({"a": 1}.values(), [1], [1]),
        ({"b": 1, "a": 2}.keys(), ["a", "b"], ["a", "b"]),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000001"),
        (Fraction(1, 3), "1/3", "1/3"),
        ({"half\ud83d": "\ud83d\ude00"}, {"half�": "😀"}, {"half�": "😀"}),
        (Offer(name="a"), {"(type)": "Offer", "name": "a", "price": 1.0, "_seen": 0}, {"name": "a", "price": 1.0, "label": "a!"}),
        ([Speaking()], [{"(type)": "Speaking", "_inside": 1}], ["all is well"]),
    ],
)
def test_states_and_answers_of_many_kinds(value: Any, state: Any, answer: Any) -> None:
    assert plain(value) == state and View(inside=False).plain(value) == answer
    assert json.loads(canonical_json(state)) is not None


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ((number for number in range(3)), "the value holds a generator, which is no data"),
        ({"rows": [map(str, [1])]}, "rows[0] holds a map, which is no data"),
        ({"it": Secretive()}, "it holds a Secretive, which shows nothing of itself"),
    ],
)
def test_answers_that_are_none_are_named(value: Any, says: str) -> None:
    with pytest.raises(NotPlain) as caught:
        View(inside=False).plain(value)
    assert says in str(caught.value)
