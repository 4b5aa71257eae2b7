"""Scores on rows: the proof that a model over a closed vocabulary learns from rows of experts, and figures by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tasks.contract.params import BadInput
from tasks.contract.schemas import SCORE
from tasks.contract.tables import read_table
from tasks.evaluate.core.scored_rows import score
from tests.environments.rooms import Rooms

MAPS = {"maps": {"maps": 2, "symbols": 5, "questions": 4}}
FAST = {"learning_rate": 5e-3, "batch_tokens": 512, "warmup": 5, "log_every": 20, "save_every": 100, "validation_rows": 20}


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Rooms:
    made = Rooms(tmp_path_factory.mktemp("rooms"))
    made.worlds(MAPS)
    made.base()
    made.rows({"play": {"rows": {"train": 1500, "validation": 20, "test": 40}}, "pairs": {"form": "pairs"}})
    return made


def test_a_model_learns_maps_from_rows_of_the_expert(rooms: Rooms) -> None:
    """Random weights know one of 5 symbols; after 200 batches nearly all."""
    figures = rooms.sft("base", "rows", "tuned", epochs=3, **FAST)
    assert (figures["rows"], figures["validation_rows"], figures["dropped_rows"]) == (1700, 40, 0)
    assert figures["proven_turns"] == 4 * (1500 + 20), "every turn of every conversation is proven, the pairs have none"
    said = rooms.scores(["base", "tuned"])["scores"]
    assert said["base"]["play"]["accuracy"] < 0.6 < 0.9 < said["tuned"]["play"]["accuracy"]
    assert said["tuned"]["play"]["exact"] > 0.5 and said["tuned"]["play"]["loss"] < 0.2 < said["base"]["play"]["loss"]
    scores = read_table(rooms.folder / "scores" / "scores.parquet", SCORE).to_pylist()
    assert len(scores) == 2 * (40 + 50) and {row["n"] for row in scores if row["part"] == "play"} == {8}
    kept = json.loads((rooms.folder / "scores" / "metrics.json").read_text())
    assert kept["scores"] == said and said["tuned"]["play"]["problems"] == 40
    lines = (rooms.folder / "scores" / "models.csv").read_text().splitlines()
    assert lines[0] == "model,n,trials,mean,low,high" and [line.split(",")[:3] for line in lines[1:]] == [
        ["base", "90", "1"],
        ["tuned", "90", "1"],
    ]
    assert (rooms.folder / "scores" / "headline.yaml").read_text().startswith("accuracy: ")


def test_scores_by_hand_and_whatever_the_batch(rooms: Rooms) -> None:
    """The same log-likelihoods as the model's own logits give, row by row; smaller batches give the same figures."""
    import torch

    from tasks.checkpoints import folders

    model = folders.load_model(rooms.folder / "base" / "model")
    ids, masks = [[1, 4, 6, 2, 7, 3], [4, 7, 8]], [[False] * 4 + [True] * 2, [False, False, True]]
    for batch_tokens in (4096, 1):
        for row, mask, said in zip(ids, masks, score(model, ids, masks, batch_tokens), strict=True):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([row])).logits[0].log_softmax(-1)
            places = [place for place, scored in enumerate(mask) if scored]
            losses = [-logits[place - 1, row[place]].item() for place in places]
            right = [int(logits[place - 1].argmax()) == row[place] for place in places]
            assert math.isclose(said["loss"], sum(losses) / len(losses), rel_tol=1e-4)
            assert (said["accuracy"], said["exact"], said["n"]) == (sum(right) / len(right), float(all(right)), len(right))


def test_bad_input_is_told(rooms: Rooms, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"the rows have no part 'paris'. Did you mean 'pairs'\? They have play, pairs"):
        rooms.scores(["base"], name="wrong_part", parts=["paris"])
    with pytest.raises(BadInput, match=r"left no rows.parquet. `generate.method: expert_rows` makes some"):
        rooms.scores(["base"], rows="base", name="no_rows")
    rooms.rows({"maps": {"rows": {"train": 3}}}, "train_alone")
    with pytest.raises(BadInput, match="no row of the parts maps is of split test: nothing to score"):
        rooms.scores(["base"], rows="train_alone", name="no_split")
    other = Rooms(tmp_path)
    other.worlds({"maps": {"maps": 2, "symbols": 3, "questions": 2}})
    other.base()
    (other.folder / "rows").symlink_to(rooms.folder / "rows")
    with pytest.raises(
        BadInput, match=r"the model does not know 2 of the \d+ words in the rows: a3, a4. Build it over the environments of the rows"
    ):
        other.scores(["base"])
