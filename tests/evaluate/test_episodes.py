"""Models and baselines on the same episodes: a model that learned from the expert's episodes wins nearly all, one that did not few."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.contract.params import BadInput
from tasks.contract.planned import Planned
from tasks.contract.schemas import SCORE
from tasks.contract.tables import read_table
from tasks.evaluate import episodes
from tests.environments.rooms import Rooms

SMOKE = {"episodes": 4, "max_turn_tokens": 4, "max_episode_tokens": 64}
MAPS = {"maps": 2, "symbols": 5, "questions": 3}
GRID = {"environment": "grid", "size": 3, "things": 1, "goals": ["reach"], "limit": 4}
FAST = {"learning_rate": 5e-3, "batch_tokens": 512, "warmup": 5, "log_every": 20, "save_every": 100, "validation_rows": 20}


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Rooms:
    made = Rooms(tmp_path_factory.mktemp("rooms"))
    made.worlds({"maps": MAPS, "rooms": GRID})
    made.base()
    made.rows({"play": {"rows": {"train": 1500, "validation": 20, "test": 0}}})
    made.sft("base", "rows", "tuned", epochs=2, **FAST)
    return made


def means(said: dict[str, Any], model: str, environment: str) -> dict[str, float]:
    found: dict[str, float] = said["scores"][model][environment]
    return found


def test_models_and_baselines_play_the_same_episodes(rooms: Rooms) -> None:
    errors = {"maps": {"other_map": 1.0}}
    said = rooms.episodes(["base", "tuned"], episodes=40, errors=errors, max_turn_tokens=4)
    scores = read_table(rooms.folder / "episodes" / "scores.parquet", SCORE).to_pylist()
    by_model = {name: [row for row in scores if row["model"] == name] for name in dict.fromkeys(row["model"] for row in scores)}
    assert list(by_model) == ["base", "tuned", "chance", "oracle", "expert"]
    assert len(by_model["expert"]) == 40 and {len(rows) for name, rows in by_model.items() if name != "expert"} == {80}
    assert len({tuple(row["row_id"] for row in rows) for name, rows in by_model.items() if name != "expert"}) == 1
    assert means(said, "tuned", "maps")["accuracy"] > 0.9 > 0.5 > means(said, "base", "maps")["accuracy"]
    for environment in ("maps", "rooms"):
        assert means(said, "oracle", environment)["exact"] == 1.0 > means(said, "chance", environment)["exact"]
    assert means(said, "expert", "maps")["exact"] == 0.0, "an expert that always takes the other map is never right"
    assert {row["family"] for row in by_model["tuned"]} == {"map_0", "map_1", "reach"} and {row["loss"] for row in scores} == {None}
    assert all(row["n"] == 3 for row in by_model["oracle"] if row["environment"] == "maps")


def test_the_same_again_and_only_some_families(rooms: Rooms) -> None:
    for name in ("once", "again"):
        rooms.episodes(["tuned"], name, episodes=6, families={"maps": ["map_1"]}, temperature=1.0, max_turn_tokens=4)
    once, again = ((rooms.folder / name / "scores.parquet").read_bytes() for name in ("once", "again"))
    assert once == again
    rows = read_table(rooms.folder / "once" / "scores.parquet", SCORE).to_pylist()
    assert {row["family"] for row in rows if row["environment"] == "maps"} == {"map_1"}


def test_bad_input_is_told(rooms: Rooms) -> None:
    with pytest.raises(BadInput, match=r"no family 'map_9'"):
        rooms.episodes(["tuned"], "wrong_family", families={"maps": ["map_9"]})
    with pytest.raises(BadInput, match=r"no error 'sleeps'"):
        rooms.episodes(["tuned"], "wrong_error", episodes=2, errors={"maps": {"sleeps": 0.5}})
    step = Planned("measure", "evaluate", episodes.Params(errors={"mapz": {}}), ["maps", "rooms"], [], [])
    with pytest.raises(BadInput, match=r"measure.episodes.errors: no environment 'mapz' is frozen. Did you mean 'maps'\?"):
        episodes.check_road(step)
    (rooms.folder / "oracle").symlink_to(rooms.folder / "tuned")
    with pytest.raises(BadInput, match=r"a model has the name 'oracle', under which another plays"):
        rooms.episodes(["oracle"], "taken")
