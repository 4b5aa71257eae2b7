"""Model answers are data: read against a schema, or refused with a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.chat.answers import looks_like_calls, mismatch, read_json
from tasks.generate.parts.apigen_mt.checks import DRAFT

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


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (r'{"score": 1, "names": ["a\ud83d", "\ud83d\ude00", "\ude00"]}', ["a\ufffd", "\U0001f600", "\ufffd"]),
        ('{"score": 1, "names": ["' + "\ud83d" + '"]}', ["\ufffd"]),
        (r'{"score": 1, "names": [], "\ud83d": {"\ude00": ["\ud83d"]}}', []),
    ],
)
def test_halves_of_characters_never_get_into_a_file(content: str, value: list[str]) -> None:
    found, why = read_json({"content": content}, SCHEMA)
    assert (found["names"], why) == (value, "") and json.dumps(found, ensure_ascii=False).encode()


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 400, "9" * 5000])
def test_numbers_that_no_file_can_hold_are_refused(number: str) -> None:
    assert "not JSON" in read_json({"content": f'{{"score": 1, "more": {number}}}'}, SCHEMA)[1]


def test_nesting_ends_somewhere() -> None:
    for levels in (65, 5000, 200_000):
        deep = '{"score": 1, "more": ' + "[" * levels + "]" * levels + "}"
        assert "nested more than 64 levels" in read_json({"content": deep}, SCHEMA)[1]


TOOLS = [{"type": "function", "function": {"name": "get_order"}}]


@pytest.mark.parametrize(
    ("content", "calls"),
    [
        ('<tool_call>\n{"name": "get_order", "arguments": {}}\n</tool_call>', True),
        ('I look.\n```json\n{"name": "get_order", "arguments": {"order_id": "1"}}\n```', True),
        ('{"name": "get_order", "parameters": {}}', True),
        ('[{"function": "get_order", "args": {}}]', True),
        ("[TOOL_CALLS][...", True),
        ("<function=get_order>{}</function>", True),
        ('```json\n{"name": "Ann", "zip": "1"}\n```', False),
        ('{"name": "cancel_all", "arguments": {}}', False),
        ("I shall call get_order for you.", False),
        ("```", False),
        ("[" * 100_000, False),
    ],
)
def test_calls_in_words_are_seen(content: str, calls: bool) -> None:
    """Only what names a tool that was offered, or carries the marks of a call, counts."""
    assert looks_like_calls(content, TOOLS) is calls
