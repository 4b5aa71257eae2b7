"""A text in other words comes back as it was, whatever the text; a dictionary that could not be taken back is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contract.conjugation import Conjugation, message_said, schema_said, value_said
from tasks.contract.params import BadInput

WORDS = ("a0", "a1", "b0", "b1", "find_user", "Wort", "\u00e4")
DICTIONARIES = st.permutations(WORDS).flatmap(
    lambda there: st.integers(1, len(WORDS)).map(lambda n: dict(zip(WORDS[:n], there, strict=False)))
)
TEXTS = st.lists(st.one_of(st.sampled_from(WORDS), st.text(), st.sampled_from((" ", ".", "\n", '"', "\\n")))).map("".join)


@given(DICTIONARIES, TEXTS)
def test_what_was_said_in_other_words_comes_back(words: dict[str, str], text: str) -> None:
    """Also where words touch, stand in quotes, or are parts of longer ones."""
    if all(word == stand_in for word, stand_in in words.items()):
        return
    conjugation = Conjugation.of(words)
    assert conjugation.back(conjugation.there(text)) == text == conjugation.there(conjugation.back(text))
    assert set(conjugation.words) == set(conjugation.words.values()), "the same words on both sides"


@given(TEXTS, TEXTS, TEXTS)
def test_a_message_with_calls_comes_back(content: str, name: str, value: str) -> None:
    swap = Conjugation.of({"a0": "b0", "name": "arguments", "find_user": "Wort"})
    function = {"name": name, "arguments": {value: [value, {"name": name}, 1, None, True]}}
    message = {"role": "assistant", "content": content, "tool_calls": [{"id": "a0", "type": "function", "function": function}]}
    there = message_said(message, swap.there)
    assert message_said(there, swap.back) == message and there["tool_calls"][0]["id"] == "a0"


def test_by_hand() -> None:
    """Words change places; a chain is closed; what is part of a longer word is another word."""
    swap = Conjugation.of({"a0": "b0", "a1": "b1"})
    assert swap.there("map_3 a1 b0, a00") == "map_3 b1 a0, a00"
    turn = Conjugation.of({"one": "two", "two": "three"})
    assert turn.there("one two three") == "two three one" and turn.back("one two three") == "three one two"
    assert value_said({"one": ["two", 2, None]}, turn.there) == {"two": ["three", 2, None]}


def test_a_schema_keeps_its_keywords() -> None:
    """`type` is a keyword, and the name of an argument: the name alone is said otherwise."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"type": {"type": "string", "enum": ["string", "type"], "description": "a type"}},
        "required": ["type"],
    }
    other = {
        "type": "object",
        "properties": {"kind": {"type": "string", "enum": ["text", "kind"], "description": "a kind"}},
        "required": ["kind"],
    }
    conjugation = Conjugation.of({"type": "kind", "string": "text"})
    assert schema_said(schema, conjugation.there) == other and schema_said(other, conjugation.back) == schema


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({}, "the dictionary changes no word"),
        ({"a0": "a0"}, "the dictionary changes no word"),
        ({"a0": "b0", "a1": "b0"}, "'b0' stands for 'a0' and for 'a1', so it could not be said back"),
        ({"a0": "b 0"}, r"'b 0' is no word. Allowed: letters, digits and _, without blanks"),
        ({"": "b0"}, "'' is no word"),
    ],
)
def test_bad_dictionaries_are_told(words: dict[str, str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Conjugation.of(words)
