"""A closed vocabulary: ids made directly are those of the chat format and of the chat template, and every row passes the mask proof."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tasks.chat.local import kept
from tasks.chat.local.tokens import decode, encode
from tasks.chat.mask_proof import Example, MaskError, prove_masks
from tasks.contract.client import Message
from tasks.contract.params import BadInput
from tasks.environments import frozen, tokens, whole_words
from tasks.environments.tokens import Vocabulary

WORDS = Vocabulary(("red", "green", "a.", "a.b", "7", "{x}"))


def messages(turns: list[tuple[str, str]]) -> list[Message]:
    return [one for told, reply in turns for one in ({"role": "user", "content": told}, {"role": "assistant", "content": reply})]


def test_a_conversation_by_hand() -> None:
    """`<user> red 7 <agent> green <end>`: 1 4 8 2 5 3; the reply's word and its end train."""
    assert WORDS.conversation([("red 7", "green")]) == ([1, 4, 8, 2, 5, 3], [False, False, False, False, True, True])
    assert WORDS.text([1, 4, 8, 2, 5, 3]) == "<user> red 7 <agent> green <end>"


def test_direct_ids_chat_format_and_template_agree_and_the_masks_are_proven() -> None:
    rng, tokenizer, chat = random.Random(0), whole_words.tokenizer(WORDS), whole_words.chat_format()
    kept.keep(tokenizer, chat)
    examples = []
    for number in range(50):
        some = [" ".join(rng.choices(WORDS.words, k=rng.randint(1, 5))) for _ in range(2 * rng.randint(1, 4))]
        turns = list(zip(some[::2], some[1::2], strict=True))
        (row,) = chat.rows(tokenizer, [(None, messages(turns), ())])[0]
        ids, trained = WORDS.conversation(turns)
        assert (row.ids, row.mask) == (ids, [int(one) for one in trained])
        said = tokenizer.apply_chat_template(messages(turns), tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
        assert (said["input_ids"], said["assistant_masks"]) == (row.ids, row.mask)
        assert encode(tokenizer, decode(tokenizer, [ids])) == [ids]
        examples.append(Example(str(number), None, messages(turns), [row]))
    assert prove_masks(chat, tokenizer, examples) == sum(len(one.messages) // 2 for one in examples)
    examples[0].rows[0].mask[0] = 1
    with pytest.raises(MaskError, match="row 0"):
        prove_masks(chat, tokenizer, examples)


def test_a_folder_keeps_the_format_and_the_words(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    whole_words.tokenizer(WORDS).save_pretrained(tmp_path)
    kept.write(whole_words.chat_format(), tmp_path)
    assert kept.read(tmp_path) == whole_words.chat_format()
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert whole_words.known_words(loaded) == WORDS
    assert encode(loaded, ["<user>red a. <agent>a.b <end>"]) == [[1, 4, 6, 2, 7, 3]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a", "b", "a"), "'a' stands twice"),
        (("a b",), "'a b' cannot be one token"),
        (("",), "'' cannot be one token"),
        (("<end>",), "'<end>' cannot be one token"),
    ],
)
def test_words_that_make_no_vocabulary_are_refused(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Vocabulary(words)


def test_what_is_no_word_and_no_id_is_refused_by_name() -> None:
    with pytest.raises(BadInput, match=r"'gren' is not in the vocabulary of 6 words. Did you mean 'green'\?"):
        WORDS.ids("red gren")
    with pytest.raises(BadInput, match="10 is no id of a vocabulary of 10 tokens"):
        WORDS.text([10])
    with pytest.raises(BadInput, match="the reply to 'red' has no word"):
        WORDS.conversation([("red", " ")])


def test_another_models_tokenizer_has_no_closed_vocabulary() -> None:
    from tasks.checkpoints.tiny import build_tokenizer

    with pytest.raises(BadInput, match=r"no closed vocabulary of whole words.*base.method: closed_vocabulary"):
        whole_words.known_words(build_tokenizer(["some text"], 300))


def test_the_words_of_several_environments_stand_by_name_and_once() -> None:
    one, other = frozen.make("maps", {"symbols": 5, "maps": 2}), frozen.make("more", {"environment": "maps", "symbols": 7, "maps": 2})
    found = tokens.vocabulary({"z": one, "a": other})
    assert found.words == tuple(dict.fromkeys([*other.words, *one.words])) and len(found) == 4 + 2 + 7
