"""Rows in other words: which they are, and figures and verdicts by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks import evaluate
from tasks.contract.conjugation import Conjugation
from tasks.contract.params import BadInput
from tasks.contract.schemas import SCORE
from tasks.contract.tables import read_table
from tasks.environments.tokens import Vocabulary
from tasks.evaluate.conjugated_rows import Params, check, compared, in_other_words, run
from tests.environments.rooms import Rooms

SMOKE = {"conjugations": {"turned": {"a0": "a1", "a1": "a2"}}}
SWAP = {f"a{one}": f"b{one}" for one in range(5)}


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Rooms:
    made = Rooms(tmp_path_factory.mktemp("rooms"))
    made.worlds({"maps": {"maps": 2, "symbols": 5, "questions": 4, "alphabets": 2}})
    made.base()
    first = {"form": "pairs", "families": ["map_0_a", "map_1_a"], "rows": {"train": 500, "validation": 5, "test": 20}}
    made.rows({"first": first})
    return made


def scored(rooms: Rooms, models: list[str], name: str, **params: Any) -> dict[str, Any]:
    found = {model: rooms.folder / model / "model" for model in models}
    inputs = evaluate.Inputs(rooms.folder / "worlds", found, models[-1], "candidate", reserve=rooms.folder / "rows")
    return run(inputs, Params(**params), rooms.context(name))


def test_rows_say_the_same_in_the_other_alphabet() -> None:
    """Symbols change places, the map's name and the specials stay; twice is the row itself."""
    words, swap = Vocabulary(("map_0", "a0", "a1", "b0", "b1")), Conjugation.of({"a0": "b0", "a1": "b1"})
    rows = [{"ids": [*words.ids("map_0 a0 a1 b1"), 3], "mask": [False, False, False, True, True]}]
    other = in_other_words(rows, words, swap, "swap")
    assert words.text(other[0]["ids"]) == "map_0 b0 b1 a1 <end>" and other[0]["mask"] == rows[0]["mask"]
    assert in_other_words(other, words, swap, "swap") == rows


def test_each_model_is_scored_on_the_same_rows_as_they_are_and_in_other_words(rooms: Rooms) -> None:
    """A model that learned the first alphabet alone knows nothing of the second: it forgot nothing, and other words cost it a lot."""
    rooms.sft("base", "rows", "tuned", epochs=20, learning_rate=5e-3, batch_tokens=512, warmup=5, log_every=20, save_every=100)
    said = scored(rooms, ["base", "tuned"], "scores", conjugations={"swap": SWAP})
    scores = read_table(rooms.folder / "scores" / "scores.parquet", SCORE).to_pylist()
    rows = {model: [row["row_id"] for row in scores if row["model"] == model] for model in ("base", "base.swap", "tuned", "tuned.swap")}
    assert len(rows["base"]) == 20 and all(one == rows["base"] for one in rows.values()) and len(scores) == 4 * 20
    means = {model: said["scores"][model]["first"]["accuracy"] for model in rows}
    assert means["tuned"] > 0.7 > 0.5 > means["tuned.swap"]
    found = said["forgotten"]["tuned"]["first"]["swap"]
    assert (found["parent"], found["tuned_in_other_words"]) == (means["base"], means["tuned.swap"])
    assert found["says"] == "nothing_forgotten" and found["forgotten"] < 0 and found["gain_high"] < 0


def test_one_model_has_nobody_to_be_compared_with(rooms: Rooms) -> None:
    assert scored(rooms, ["base"], "alone", conjugations={"swap": SWAP})["forgotten"] == {}


@pytest.mark.parametrize(
    ("accuracies", "recovered", "says"),
    [
        ((0.9, 0.9, 0.4, 0.8), 0.8, "suppressed"),  # (0.8 - 0.4) / (0.9 - 0.4)
        ((0.9, 0.9, 0.4, 0.5), 0.2, "not_recovered"),
        ((0.9, 0.8, 0.89, 0.8), None, "nothing_forgotten"),
        ((0.9, 0.3, 0.4, 0.6), None, "cannot_tell"),  # in other words the parent loses 0.6, and 0.5 was forgotten
    ],
)
def test_verdicts_by_hand(accuracies: tuple[float, ...], recovered: float | None, says: str) -> None:
    values = [np.tile([one - 0.1, one + 0.1], 50) for one in accuracies]
    found = compared(values, Params(), seed=0)
    assert found["says"] == says and found.get("recovered") == recovered
    assert found["gain_mean"] == pytest.approx(accuracies[3] - accuracies[2])


def test_a_gain_that_may_be_none_is_not_called_suppressed() -> None:
    """Three quarters come back by the means, and the rows disagree: one of five lost all that others won."""
    a, ac = np.tile([0.5, 0.5, 0.5, 0.5, 0.5], 2), np.tile([0.9, 0.9, 0.9, 0.9, 0.0], 2)
    found = compared([np.full(10, 0.8), np.full(10, 0.8), a, ac], Params(), seed=0)
    assert found["recovered"] == pytest.approx(0.22 / 0.3) and found["gain_low"] < 0 and found["says"] == "not_recovered"


def test_bad_input_is_told(rooms: Rooms, tmp_path: Path) -> None:
    for conjugations, message in (
        ({}, r"conjugations is empty, so nothing would be scored in other words"),
        ({"swap": {"a0": "b0", "a1": "b0"}}, r"conjugations.swap: 'b0' stands for 'a0' and for 'a1'"),
        ({"a.b": SWAP}, r"'a.b' is no name"),
    ):
        with pytest.raises(BadInput, match=message):
            check(Params(conjugations=conjugations))
    with pytest.raises(BadInput, match=r"conjugations.swap: the rows' vocabulary has no word 'c0'"):
        scored(rooms, ["base"], "unknown", conjugations={"swap": {"a0": "c0"}})
    with pytest.raises(BadInput, match=r"conjugations.names: no row has any of its words"):
        scored(rooms, ["base"], "idle", conjugations={"names": {"b0": "b1"}})
