"""A tiny model over the words of environments: every word a token, the same bytes again, and shapes that make no model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.base.closed_vocabulary import Params, check
from tasks.chat.local import kept
from tasks.checkpoints import folders
from tasks.contract.params import BadInput
from tasks.environments import frozen, tokens, whole_words
from tests.base.test_tiny_qwen3 import same
from tests.environments.rooms import Rooms

BOTH = {"maps": {"maps": 2, "symbols": 5}, "others": {"environment": "maps", "maps": 3, "symbols": 7}}
SMOKE = {"width": 32, "heads": 2}


def test_the_words_of_all_environments_are_its_tokens(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path)
    assert rooms.worlds(BOTH)["words"] == 3 + 7
    figures = rooms.base()
    model, tokenizer = folders.load(tmp_path / "base" / "model")
    words = tokens.vocabulary(frozen.load_all(tmp_path / "worlds"))
    assert figures["vocabulary"] == len(words) == 4 + 10 == model.config.vocab_size
    assert whole_words.known_words(tokenizer) == words and kept.chat_of(tokenizer) == whole_words.chat_format()
    assert tokenizer("map_2 a6 ")["input_ids"] == words.ids("map_2 a6")
    assert figures["parameters"] == sum(parameter.numel() for parameter in model.parameters())


def test_the_same_bytes_again_and_other_weights_from_another_seed(tmp_path: Path) -> None:
    one, other = Rooms(tmp_path / "one"), Rooms(tmp_path / "other", seed=1)
    for rooms in (one, other):
        rooms.worlds(BOTH)
        rooms.base()
    one.base("again")
    assert same(one.folder / "base", one.folder / "again") and not same(one.folder / "base", other.folder / "base")


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"width": 100, "heads": 4}, r"width 100 is not a multiple of twice the heads \(4\)"),
        ({"layers": 1}, r"looks_back: 1 layers of 4 heads cannot look back. Allowed: two layers"),
        ({"heads": 1}, "looks_back: 2 layers of 1 heads cannot look back"),
    ],
)
def test_shapes_that_make_no_model_are_refused(params: dict[str, int], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        check(Params(**params))


def test_worlds_without_environments_are_refused(tmp_path: Path) -> None:
    (tmp_path / "worlds").mkdir()
    with pytest.raises(BadInput, match="holds no frozen environment"):
        Rooms(tmp_path).base()
