"""Every method on environments, and training on their rows, through the checks that all methods go through (`test_rooms.py`): the same
inputs give the same bytes, inputs are never written, files are as the interface says. They are quick enough for every run of the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tasks import base, evaluate, generate
from tasks.contract import schemas
from tasks.engine import methods
from tasks.engine.hashes import Hashes
from tasks.worlds import environments
from tests.contract.methods import smoke_params
from tests.contract.test_rooms import ALL, check_these, finite
from tests.environments.rooms import Rooms

OWN = [(one.room, one.name) for one in methods.everything() if methods.ground(one.room, one.name) == methods.ENVIRONMENTS]
FILES: Mapping[str, Mapping[str, Any]] = {
    "worlds": {"maps/environment.json": None},
    "base": {"model/config.json": None, "model/model.safetensors": None, "curves.csv": None},
    "generate": {"rows.parquet": schemas.TOKEN_ROW, "words.json": None},
    "sft": {"model/config.json": None, "model/model.safetensors": None, "curves.csv": None},
    "evaluate": {
        "scores.parquet": schemas.SCORE,
        "metrics.json": None,
        "headline.yaml": None,
        "models.csv": None,
        "families.csv": None,
    },
}
"""What methods on environments leave."""


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Rooms:
    made = Rooms(tmp_path_factory.mktemp("rooms"))
    made.worlds(smoke_params("worlds", "environments")["environments"])
    made.base(**smoke_params("base", "closed_vocabulary"))
    made.rows(smoke_params("generate", "expert_rows")["parts"])
    return made


def inputs(rooms: Rooms, room: str) -> Any:
    """The room's `Inputs`, as its task fills them."""
    worlds = rooms.folder / "worlds"
    if room == "evaluate":
        return evaluate.Inputs(worlds, {"base": rooms.folder / "base" / "model"}, "base", "some.dir", reserve=rooms.folder / "rows")
    return {"worlds": environments.Inputs, "base": base.Inputs, "generate": generate.Inputs}[room](
        *([] if room == "worlds" else [worlds])
    )


def listing(rooms: Rooms, *folders: str) -> list[Any]:
    hashes = Hashes(rooms.folder / "state")
    return [hashes.path(rooms.folder / folder) for folder in folders]


@pytest.mark.parametrize(("room", "name"), OWN)
def test_contract(rooms: Rooms, room: str, name: str) -> None:
    before, figures = listing(rooms, "worlds", "base", "rows"), []
    for turn in ("first", "again"):
        module, context = methods.load(room, name), rooms.context(f"{turn}_{name}")
        params = module.Params(**smoke_params(room, name))
        if hasattr(module, "check"):
            module.check(params)
        figures.append(module.run(inputs(rooms, room), params, context))
    first, again = listing(rooms, f"first_{name}", f"again_{name}")
    assert first == again, "same inputs, same bytes"
    assert figures[0] == figures[1] and finite(figures[0]), figures
    assert listing(rooms, "worlds", "base", "rows") == before, "inputs are never written"
    check_these(FILES[room], rooms.folder / f"first_{name}")


def test_training_on_rows_of_tokens_is_the_same_again(rooms: Rooms) -> None:
    short = {"batch_tokens": 64, "log_every": 1, "save_every": 2, "warmup": 1}
    figures = [rooms.sft("base", "rows", name, **short) for name in ("tuned", "tuned_again")]
    one, other = listing(rooms, "tuned", "tuned_again")
    assert one == other and figures[0] == figures[1] and finite(figures[0])
    check_these(FILES["sft"], rooms.folder / "tuned")


def test_every_method_goes_through_the_checks_once() -> None:
    assert sorted([*ALL, *OWN]) == sorted((one.room, one.name) for one in methods.everything()) and OWN
