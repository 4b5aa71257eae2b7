"""Model answers are data: read against a schema, or refused with a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.generate.core.checks import DRAFT
from tasks.llm.answers import mismatch, read_json

SCHEMA = {
    "type": "object",
    "properties": {
        "score": {"type": "integer", "minimum": 0, "maximum": 10},
        "names": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["score"],
}


def test_a_plain_and_a_fenced_object_read_the_same() -> None:
    plain, fenced = '{"score": 3}', '```json\n{"score": 3}\n```'
    assert read_json({"content": plain}, SCHEMA) == read_json({"content": fenced}, SCHEMA) == ({"score": 3}, "")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "empty"),
        (None, "empty"),
        ("I would say three.", "not JSON"),
        ('{"score": ', "not JSON"),
        ('{"score": NaN}', "NaN is not JSON"),
        ("[3]", "should be a JSON object"),
        ("{}", "lacks 'score'"),
        ('{"score": "3"}', "answer.score should be of type integer"),
        ('{"score": true}', "answer.score should be of type integer"),
        ('{"score": 11}', "at most 10"),
        ('{"score": -1}', "at least 0"),
        ('{"score": 3, "names": ["a", 4]}', "answer.names[1] should be of type string"),
    ],
)
def test_an_unfit_answer_says_why(content: Any, reason: str) -> None:
    value, error = read_json({"content": content}, SCHEMA)
    assert value == {} and reason in error


def test_enum_additional_keys_and_lengths() -> None:
    assert "one of ['a', 'b']" in mismatch("c", {"enum": ["a", "b"]})
    assert "unknown key 'x'" in mismatch({"x": 1}, {"type": "object", "properties": {}, "additionalProperties": False})
    assert "at least 1 entries" in mismatch({"thought": "", "instruction": "x", "actions": [], "outputs": []}, DRAFT)


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), lambda leaf: st.lists(leaf) | st.dictionaries(st.text(), leaf)))
def test_any_answer_is_read_or_refused(answer: Any) -> None:
    content = answer if isinstance(answer, str) else json.dumps(answer)
    value, error = read_json({"content": content}, DRAFT)
    assert bool(value) != bool(error)


def test_a_bottomless_answer_is_refused() -> None:
    assert "not JSON" in read_json({"content": "[" * 200_000}, SCHEMA)[1]
