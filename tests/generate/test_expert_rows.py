"""Rows of experts: what is played, what is noise, what is kept, and that every count adds up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tasks.contract.params import BadInput, StageFailed
from tasks.contract.schemas import TOKEN_ROW
from tasks.contract.tables import read_table
from tasks.environments import frozen, tokens
from tasks.generate.expert_rows import noisy
from tests.base.test_tiny_qwen3 import same
from tests.environments.rooms import Rooms

WORLDS = {"maps": {"maps": 3, "symbols": 7, "questions": 3, "known": 0.5}, "late": {"environment": "maps", "maps": 4, "symbols": 5}}
SMOKE = {"parts": {"maps": {"rows": {"train": 20, "validation": 4, "test": 4}}}}


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Rooms:
    made = Rooms(tmp_path_factory.mktemp("rooms"))
    made.worlds(WORLDS)
    return made


def left(rooms: Rooms, name: str) -> list[dict[str, Any]]:
    return read_table(rooms.folder / name / "rows.parquet", TOKEN_ROW).to_pylist()


def right(rooms: Rooms, row: dict[str, Any]) -> list[bool]:
    """Of each answer of an episode of `maps`, whether it is right."""
    table = frozen.load(rooms.folder / "worlds" / "maps").tables  # type: ignore[attr-defined]
    words = tokens.read_words(rooms.folder / "rows").text(row["ids"]).split()
    map_ = int(words[1].partition("_")[2])
    symbols = [int(word[1:]) for word in words if word[0] == "a"]
    return [table[map_, x] == y for x, y in zip(symbols[::2], symbols[1::2], strict=True)]


def test_rows_are_episodes_of_the_expert(rooms: Rooms) -> None:
    figures = rooms.rows(
        {"maps": {"rows": {"train": 30, "test": 10}, "families": ["map_1", "map_2_part"]}, "late": {"environment": "late"}}
    )
    rows = left(rooms, "rows")
    words = tokens.read_words(rooms.folder / "rows")
    mine = [row for row in rows if row["part"] == "maps"]
    assert len(mine) == 40 and len(rows) == figures["rows"] == 40 + 270 == sum(one["rows"] for one in figures["parts"].values())
    assert {row["family"] for row in mine} == {"map_1", "map_2_part"} and {row["return"] for row in rows} == {1.0}
    environment = frozen.load(rooms.folder / "worlds" / "maps")
    for row in mine:
        assert all(right(rooms, row)) and row["turns"] == 3 and environment.split(row["seed"]) == row["split"]
        assert words.text(one for one, trained in zip(row["ids"], row["mask"], strict=True) if trained).count("<end>") == 3
    assert figures["trained_tokens"] == sum(sum(row["mask"]) for row in rows) and len({row["row_id"] for row in rows}) == len(rows)


def test_the_same_part_gets_the_same_rows_beside_others(rooms: Rooms) -> None:
    part = {"rows": {"train": 10}}
    rooms.rows({"one": part}, "alone")
    rooms.rows({"zero": part, "one": part}, "beside")
    beside = left(rooms, "beside")
    assert left(rooms, "alone") == beside[10:] and beside[0]["seed"] != beside[10]["seed"]
    rooms.rows({"one": part}, "again")
    assert same(rooms.folder / "alone", rooms.folder / "again")


def test_errors_noise_and_weights_are_for_train_rows_alone(rooms: Rooms) -> None:
    counts = {"train": 200, "validation": 30, "test": 30}
    figures = rooms.rows({"maps": {"rows": counts, "errors": {"other_map": 0.3}, "weight": 0.5}}, "wrong")
    answers = {split: [one for row in left(rooms, "wrong") if row["split"] == split for one in right(rooms, row)] for split in counts}
    assert 0.1 < 1 - np.mean(answers["train"]) < 0.4 and all(answers["test"]) and all(answers["validation"])
    assert {(row["split"], row["weight"]) for row in left(rooms, "wrong")} == {("train", 0.5), ("validation", 1.0), ("test", 1.0)}
    assert figures["parts"]["maps"]["return"] < 1 and figures["parts"]["maps"]["replaced"] == 0
    figures = rooms.rows({"maps": {"rows": counts, "noise": 0.3}}, "noise")
    clean = {row["row_id"]: row for row in left(rooms, "wrong")}
    replaced = 0
    for row in left(rooms, "noise"):
        changed = [
            place for place, (one, other) in enumerate(zip(row["ids"], clean[row["row_id"]]["ids"], strict=True)) if one != other
        ]
        replaced += len(changed) if row["split"] == "train" else 0
        assert row["split"] == "train" or not changed
        assert all(row["mask"][place] and row["ids"][place] >= 4 for place in changed)
    assert figures["parts"]["maps"]["replaced"] == pytest.approx(0.3 * 600, rel=0.25) and replaced > 0


def test_noise_by_hand() -> None:
    """Of `<agent> a <end>` only the word a, id 4, may change, and it does become another one."""
    ids, mask = np.array([2, 4, 3]), np.array([False, True, True])
    found, count = noisy(ids, mask, 1.0, 2, np.random.default_rng(0))
    assert (found.tolist(), count) == ([2, 5, 3], 1)
    assert noisy(ids, mask, 0.0, 2, np.random.default_rng(0))[0].tolist() == ids.tolist()


def test_only_won_episodes_are_kept_where_that_is_asked(rooms: Rooms) -> None:
    figures = rooms.rows({"maps": {"rows": {"train": 50}, "errors": {"other_map": 0.3}, "keep": "won"}}, "won")["parts"]["maps"]
    assert len(left(rooms, "won")) == 50 and all(all(right(rooms, row)) for row in left(rooms, "won"))
    assert figures["lost"] > 20 and figures["return"] == 1.0
    with pytest.raises(StageFailed, match=r"of 500 episodes with errors \{'next_symbol': 1.0\} 0 were won; 5 are wanted"):
        rooms.rows({"maps": {"rows": {"train": 5}, "errors": {"next_symbol": 1.0}, "keep": "won"}}, "never")


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"environment": "late_"}, r"parts.x.environment: 'late_' is not frozen. Did you mean 'late'\? There are late, maps."),
        ({"form": "pair"}, r"parts.x.form: environment maps has no form 'pair'. Did you mean 'pairs'\? Known: play, pairs."),
        ({"families": ["map_9"]}, "environment maps: there is no family 'map_9'"),
        ({"errors": {"sleeps": 0.1}}, "its expert makes no error 'sleeps'. Known: other_map, next_symbol."),
        ({"errors": {"other_map": 2}}, r"the rate of error 'other_map' is 2. Allowed: 0 to 1."),
        ({"rows": {"train": -1}}, r"parts.x.rows.train = -1. Allowed: 0 to 1,000,000."),
        ({"rows": {"train": 0}}, "parts.x.rows: no split has a row"),
        ({"form": "pairs", "keep": "won"}, "parts.x.keep: only episodes that are played"),
        ({"form": "pairs", "errors": {"other_map": 0.1}}, "parts.x.errors: only episodes that are played"),
    ],
)
def test_bad_input_is_told(rooms: Rooms, request: pytest.FixtureRequest, part: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        rooms.rows({"x": part}, f"bad_{abs(hash(request.node.name))}")
