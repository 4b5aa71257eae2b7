"""Rows of tokens in room sft: their masks are proven, what cannot be used is counted by reason, and mistakes are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.chat.mask_proof import MaskError
from tasks.checkpoints import folders
from tasks.contract.params import BadInput, StageFailed
from tasks.contract.schemas import TOKEN_ROW
from tasks.contract.tables import read_table, write_rows
from tasks.environments import tokens
from tasks.sft.core.data import IGNORED, Data
from tasks.sft.core.token_rows import load_token_rows
from tests.chat.talks import tokenizer as other_tokenizer
from tests.environments.rooms import Rooms

COUNTS = {"train": 12, "validation": 3, "test": 2}


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Rooms:
    made = Rooms(tmp_path_factory.mktemp("rooms"))
    made.worlds({"maps": {"maps": 2, "symbols": 5, "questions": 4}})
    made.base()
    made.rows({"play": {"rows": COUNTS, "weight": 0.5}, "pairs": {"rows": {"train": 2}, "form": "pairs"}})
    return made


def loaded(rooms: Rooms, rows: str = "rows", longest: int = 100, row_weight: Any = lambda row: 1.0) -> Data:
    return load_token_rows(rooms.folder / rows, folders.load_tokenizer(rooms.folder / "base" / "model"), longest, row_weight)


def altered(rooms: Rooms, name: str, **change: Any) -> str:
    """The rows again, of the first one some columns changed."""
    folder = rooms.folder / name
    folder.mkdir()
    rows = read_table(rooms.folder / "rows" / "rows.parquet", TOKEN_ROW).to_pylist()
    write_rows(folder / "rows.parquet", TOKEN_ROW, [{**rows[0], **change}, *rows[1:]])
    tokens.write_words(tokens.read_words(rooms.folder / "rows"), folder)
    return name


def test_rows_keep_ids_masks_weights_and_what_they_are_about(rooms: Rooms) -> None:
    data = loaded(rooms, row_weight=lambda row: 1 + row["turns"])
    assert (len(data.train), len(data.validation), data.dropped) == (14, 3, []) and data.proven_turns == 4 * 15
    assert data.offered == {"train": (14, 12 * 8 + 2 * 4), "validation": (3, 24)}
    rows = {row["row_id"]: row for row in read_table(rooms.folder / "rows" / "rows.parquet", TOKEN_ROW).to_pylist()}
    for one in data.train:
        row = rows[one.name]
        assert one.ids == row["ids"] and one.labels == [a if b else IGNORED for a, b in zip(row["ids"], row["mask"], strict=True)]
        assert one.weight == (0.5 * 5 if row["part"] == "play" else 1.0)
        assert (one.about["world"], one.about["tags"], one.about["family"]) == ("maps", [row["part"]], row["family"])


def test_rows_that_are_too_long_or_train_nothing_are_counted(rooms: Rooms) -> None:
    assert loaded(rooms, longest=10).dropped_by() == {"too long": 15}
    name = altered(rooms, "idle", mask=[False] * 21, ids=[1] + [4] * 20, turns=0)
    assert loaded(rooms, name).dropped == [("play/train/0", "no trained token")]
    with pytest.raises(StageFailed, match=r"sft: 2 of 14 kept rows of the train split.*Left out: 15 too long"):
        rooms.sft("base", "rows", "too_long", max_length=16, batch_tokens=64, min_trained=0.9)


def test_a_mask_that_is_not_the_agents_own_words_is_refused(rooms: Rooms) -> None:
    row = read_table(rooms.folder / "rows" / "rows.parquet", TOKEN_ROW).to_pylist()[0]
    told = altered(rooms, "told", mask=[place in (1, 2) or own for place, own in enumerate(row["mask"])])
    with pytest.raises(MaskError, match="row play/train/0"):
        loaded(rooms, told)
    short = altered(rooms, "short", mask=row["mask"][:-1])
    with pytest.raises(StageFailed, match="row play/train/0: 21 ids, 20 values of its mask"):
        loaded(rooms, short)


def test_weights_that_make_no_sense_are_refused(rooms: Rooms) -> None:
    with pytest.raises(StageFailed, match=r"row play/train/0: its weight is 0.5 in the dataset, times -1 by the method"):
        loaded(rooms, row_weight=lambda row: -1.0)


def test_another_model_and_a_control_are_refused(rooms: Rooms, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="the model's tokenizer has no closed vocabulary of whole words"):
        load_token_rows(rooms.folder / "rows", other_tokenizer(), 100, lambda row: 1.0)
    with pytest.raises(BadInput, match=r"loop.control: rows of tokens went through no filter"):
        rooms.sft("base", "rows", "control", unfiltered=True)
    other = Rooms(tmp_path)
    other.worlds({"maps": {"maps": 1, "symbols": 5, "questions": 3}})
    other.base()
    (other.folder / "rows").symlink_to(rooms.folder / "rows")
    with pytest.raises(BadInput, match=r"the model does not know 1 of the \d+ words in the rows: map_1."):
        loaded(other)


def test_no_row_to_train_on_names_the_step_that_makes_rows(rooms: Rooms) -> None:
    rooms.rows({"maps": {"rows": {"test": 3}}}, "test_alone")
    with pytest.raises(StageFailed, match=r"no row of the train split.*`generate.expert_rows.parts` says how many rows of which split"):
        rooms.sft("base", "test_alone", "none")
