"""Values: which are equal, what comes back, what no row can hold.

Worked by hand: 25, 25.0 and Decimal("25.0") are {"n":25}; Decimal("0.1") is the float 0.1; {2, 10} is {"$set":[10,2]} (sorted as text), and
an object that has "$set" as its only key is put into {"$object":...}, so that it equals no set. Pinned: the hash of one plain table, taken
before sets and decimals were values, so that worlds that were frozen then are still valid.
"""

from __future__ import annotations

import copy
import json
import pickle
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contract.values import DEPTH, Row, canonical_json, frozen, tagged, untagged
from tasks.worlds.api.state import Base, State
from tests.worlds.test_state import PATIENT, VALUE


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (25, "25"),
        (25.0, "25"),
        (Decimal("25.0"), "25"),
        (Decimal("2.5E+1"), "25"),
        (-0.0, "0"),
        (Decimal("-0.00"), "0"),
        (0.1, "0.1"),
        (Decimal("0.10"), "0.1"),
        (Decimal("-0.1000000000000000000001"), '{"$decimal":"-1000000000000000000001E-22"}'),
        (Decimal("1000.00000000000000000010"), '{"$decimal":"10000000000000000000001E-19"}'),
        (Decimal("1E-400"), '{"$decimal":"1E-400"}'),
        (True, "true"),
        (1, "1"),
        (None, "null"),
        ("é\x00", '"é\\u0000"'),
        ((1, 2.0), "[1,2]"),
        ({"b": 1, "a": [2.0]}, '{"a":[2],"b":1}'),
        ({2, 10}, '{"$set":[10,2]}'),
        (frozenset({1.0, "1", None}), '{"$set":["1",1,null]}'),
        ({"$set": [1]}, '{"$object":{"$set":[1]}}'),
        ({"$object": 1.0}, '{"$object":{"$object":1}}'),
        ({"$set": 1, "b": 2}, '{"$set":1,"b":2}'),
    ],
)
def test_canonical_by_hand(value: Any, text: str) -> None:
    assert canonical_json(value) == canonical_json(frozen(value)) == text


def test_a_set_is_no_list_and_a_decimal_no_text() -> None:
    apart = [{1}, [1], {"$set": [1]}, "1", 1, True, Decimal("1.00000000000000000000001"), {"$decimal": "100000000000000000000001E-23"}]
    assert len({canonical_json(value) for value in apart}) == len(apart)


def test_plain_json_hashes_as_it_always_did() -> None:
    """Computed with the code before this one."""
    a = {"n": 25.0, "x": [1, 2.5, {"ä": None, "b": True}], "s": "e\u0301\x00"}
    b = {"n": -0.0, "m": 1e300, "z": {}, "k": []}
    live = State(Base({"t": {"a": a, "b": b}, "u": {}}))
    assert live.hash() == "e237af4526f9f12e517d7676b65035b985a657985d962435db43fbe6886211c2"
    live.update("t", "b", n=2)
    live.put("u", "1", {})
    assert live.hash() == "c479590612159bce2ae2d93b930310757c68e216b04f964277df2be04716fbd6"


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types throughout."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, frozenset):
        return sorted(map(repr, one)) == sorted(map(repr, other))
    return repr(one) == repr(other)


@PATIENT
@given(st.dictionaries(st.sampled_from(["a", "$set", "$decimal", "$object"]), VALUE, max_size=2))
def test_files_give_back_the_very_values(value: dict[str, Any]) -> None:
    kept = frozen(value)
    text = json.dumps(tagged(kept))
    assert same(untagged(json.loads(text)), kept)
    assert canonical_json(untagged(json.loads(text))) == canonical_json(value)
    assert text == json.dumps(tagged(untagged(json.loads(text)))), "the same bytes every time"


@pytest.mark.parametrize("tag", [{"$set": "ab"}, {"$decimal": "x"}, {"$decimal": 5}, {"$decimal": "NaN"}, {"$object": 1}])
def test_a_tag_without_its_value_is_refused(tag: Any) -> None:
    with pytest.raises(ValueError, match=r"\$(set|decimal|object) holds|not a JSON number"):
        untagged({"a": tag})


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (float("inf"), "inf is not a JSON number"),
        (Decimal("NaN"), "is not a JSON number"),
        (Decimal("1E+309"), "is not a JSON number"),
        (2**1024, "an integer of 1025 bits is larger than JSON numbers can be"),
        ("a\ud83d", r"text with half a character \(\\ud83d\)"),
        ({"\udc00": 1}, r"half a character \(\\udc00\)"),
        (deep(DEPTH + 1), f"nested more than {DEPTH} levels deep"),
        (deep(100_000), f"nested more than {DEPTH} levels deep"),
        (b"x", "got bytes"),
        ({1: 2}, "keys must be strings, got int"),
    ],
)
def test_what_no_row_can_hold(value: Any, says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        Row({"a": value})
    assert Row({"a": deep(DEPTH), "n": 2**1024 - 1, "d": Decimal("9E+308"), "z": Decimal("0E+999")})


def test_a_row_that_is_put_into_itself_again_and_again_is_stopped() -> None:
    live = State(Base({"t": {"a": {"before": None}}}))
    with pytest.raises(ValueError, match="nested more than"):
        for _ in range(DEPTH + 1):
            live.update("t", "a", before=live.get("t", "a"))
    assert len(live.hash()) == 64 and json.loads(canonical_json(live.get("t", "a")))


def test_rows_are_copied_as_rows() -> None:
    row = Row({"a": [1, {"b": {2}}]})
    for twin in (pickle.loads(pickle.dumps(row)), copy.deepcopy(row), copy.copy(row)):
        assert same(twin, row)
        with pytest.raises(TypeError, match="shared"):
            twin["a"] = 1
