"""The worlds stage: the same params give the same bytes, and what is loaded again is the world that was frozen.

Worked by hand: size 10 gives 10 users a world, of which 2 are test, 1 validation and 7 train. Limit: without changes, the loaded world's
state hash is the one in world.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.contract.context import Context
from tasks.contract.params import BadInput, validate
from tasks.contract.problem import SPLITS
from tasks.worlds import freeze
from tasks.worlds.api.frozen import freeze_world, load, load_all, load_unseen, place_of
from tasks.worlds.api.problem_making import draw_problems
from tasks.worlds.api.runtime import World, rules_of, split_users
from tasks.worlds.api.state import State
from tasks.worlds.api.tools import read


def frozen(folder: Path, seed: int = 0, **params: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    figures = freeze.run(freeze.Inputs(), freeze.Params(**{"size": 10, **params}), Context(seed, folder, folder))
    assert set(figures["worlds"]) == {path.name for path in folder.iterdir()}
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_same_params_same_bytes(tmp_path: Path) -> None:
    one, two, other = (frozen(tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert contents(one) == contents(two) and contents(one) != contents(other)
    names = {"world.json", "policy.md", "schemas.json", "tables.json", "splits.json"}
    assert set(contents(one)) == {f"{world}/{name}" for world in ("airline", "retail") for name in names}


def test_round_trip(tmp_path: Path) -> None:
    worlds = load_all(frozen(tmp_path))
    assert list(worlds) == ["airline", "retail"]
    for name, world in worlds.items():
        about = json.loads((tmp_path / name / "world.json").read_text())
        built = World.build(world.shared.cls, 10, about["seed"], about["address"])
        assert world.state_hash() == built.state_hash() == about["state"]
        assert draw_problems(world, "train", 14, 5) == draw_problems(built, "train", 14, 5)
        assert world.schemas() == json.loads((tmp_path / name / "schemas.json").read_text())
        assert world.policy == (tmp_path / name / "policy.md").read_text() and world.rules == rules_of(world.policy)


class Talker:
    """A world whose tool says more than anybody reads."""

    NAME, POLICY = "talker", "R1. Be kind."

    def __init__(self, db: State) -> None:
        self.db = db

    @staticmethod
    def tables(size: int, seed: int) -> dict[str, Any]:
        return {"users": {f"u{number}": {} for number in range(size)}}

    @read()
    def tell(self, many: int) -> str:
        """Tell.

        Args:
            many: How much.
        """
        return "é" * many


def test_the_longest_answer_is_the_worlds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever plays a frozen world cuts its answers where the params say. Limit: as many characters as allowed are not cut."""
    freeze_world(World.build(Talker, 3, 0, f"{__name__}:Talker", longest_answer=1000), tmp_path / "talker")
    world = load(tmp_path / "talker").fork()
    assert world.call("tell", {"many": 1000}).content == "é" * 1000 and not caplog.text
    kept, _, told = world.call("tell", {"many": 5_000_000}).content.partition("\n")
    assert kept == "é" * 1000 and told == "[the answer was cut: 4,999,000 of 5,000,000 characters are left out; ask for less]"
    assert "tool 'tell' gave an answer of more than 1000 characters" in caplog.text and "worlds.freeze.longest_answer" in caplog.text
    assert len(World.build(Talker, 3, 0).call("tell", {"many": 5_000_000}).content) < 31_000, "by default too"


def test_splits_by_hand() -> None:
    users = [f"U{number}" for number in range(10)]
    splits = split_users(users, 0)
    assert [list(splits.values()).count(split) for split in SPLITS] == [7, 1, 2]
    assert splits == split_users(reversed(users), 0) and splits != split_users(users, 1)
    assert sorted(split_users(users[:3], 0).values()) == sorted(SPLITS)
    with pytest.raises(BadInput, match=r"at least 3 users, one for each split; it has 2"):
        split_users(users[:2], 0)


def test_a_users_own_world(tmp_path: Path) -> None:
    """A class without scripts, problems or predicates is a world too."""
    world = load(frozen(tmp_path, modules=["tests.flows.shop:Shop"]) / "shop")
    assert world.rules == {"R1": "Hand over to a person when an order was delivered."}
    assert world.families == () and world.scripts is None
    with pytest.raises(BadInput, match=r"makes no problems of its own"):
        draw_problems(world, "train", 1, 0)


def test_what_was_altered_is_not_loaded(tmp_path: Path) -> None:
    folder = frozen(tmp_path) / "retail"
    with pytest.raises(BadInput, match=r"holds no frozen world. Run the step that freezes worlds first"):
        load_all(tmp_path / "nothing")
    with pytest.raises(BadInput, match=r"is not a frozen world"):
        load(tmp_path)
    about = json.loads((folder / "world.json").read_text())
    tables = (folder / "tables.json").read_text()
    (folder / "tables.json").write_text(tables.replace('"pending"', '"delivered"', 1))
    with pytest.raises(BadInput, match=r"tables.json was altered"):
        load(folder)
    (folder / "tables.json").write_text(tables[:-5])
    with pytest.raises(BadInput, match=r"not readable as JSON"):
        load(folder)
    (folder / "world.json").write_text(json.dumps({**about, "code": "0" * 32}))
    with pytest.raises(BadInput, match=r"code of tasks.worlds.library.retail:Retail has changed since it was frozen"):
        load(folder)
    (folder / "world.json").write_text(json.dumps({**about, "format": 0}))
    with pytest.raises(BadInput, match=r"format 0, this version reads 1"):
        load(folder)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"size": 2}, "Allowed: whole number >= 3 and <= 20000"),
        ({"modules": []}, "modules = []"),
        ({"modulse": ["x:Y"]}, "unknown key 'modulse'. Did you mean 'modules'?"),
    ],
)
def test_bad_params_are_named(values: dict[str, object], says: str) -> None:
    with pytest.raises(BadInput) as caught:
        validate(freeze.Params, values, "params/pipeline.yaml: worlds.freeze")
    assert says in str(caught.value) and "params/pipeline.yaml: worlds.freeze" in str(caught.value)


LIBRARY = "tasks.worlds.library.library.world:Library"


def test_an_unseen_world_lies_apart(tmp_path: Path) -> None:
    """Whoever asks for the worlds does not get it, and the others are what they are without it."""
    with_it = tmp_path / "with"
    with_it.mkdir()
    params = freeze.Params(size=10, unseen=[LIBRARY])
    freeze.check(params)
    assert (freeze.names(params), freeze.unseen(params)) == (["retail", "airline"], ["library"])
    figures = freeze.run(freeze.Inputs(), params, Context(0, with_it, with_it))
    assert list(figures["worlds"]) == ["retail", "airline", "library"] and figures["worlds"]["library"]["test"] == 2
    plain = contents(frozen(tmp_path / "without"))
    assert {name: text for name, text in contents(with_it).items() if not name.startswith("unseen/library/")} == plain
    assert list(load_all(with_it)) == ["airline", "retail"] and list(load_unseen(with_it)) == ["library"]
    assert place_of(with_it, "library") == with_it / "unseen/library" and place_of(with_it, "retail") == with_it / "retail"
    assert load_unseen(tmp_path / "without") == {}


class Unseen(Talker):
    NAME = "unseen"


class Barren(Talker):
    """It says that it makes problems, and makes none."""

    NAME, FAMILIES, PERSONAS = "barren", ("any",), ("plain",)

    @staticmethod
    def context(db: State, user: str, others: list[str], rng: Any) -> dict[str, Any]:
        return {}

    @staticmethod
    def propose(*_: Any) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize(
    ("unseen", "says"),
    [
        ("tasks.worlds.library.retail:Retail", r"Retail' stands in modules, which are trained on, and in unseen, which never are"),
        ("tasks.worlds.library.library.world:Libary", r"has no class 'Libary'. Did you mean 'Library'"),
        ("library", r"world 'library': not of the form 'package.module:Class'"),
        ("tests.flows.shop:Shop", r"unseen world 'tests.flows.shop:Shop': makes no problems of its own"),
        (f"{__name__}:Unseen", r"NAME = 'unseen' must be .* not 'unseen'"),
    ],
)
def test_an_unseen_world_that_cannot_be_one_is_refused(unseen: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        freeze.check(freeze.Params(unseen=[unseen]))


def test_an_unseen_world_without_test_problems_is_refused_as_it_is_frozen(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"world barren: no further problem of family 'any' in split 'test'"):
        frozen(tmp_path, unseen=[f"{__name__}:Barren"])


def test_worlds_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(BadInput, match=r"have the same name 'retail'"):
        freeze.check(freeze.Params(modules=["tasks.worlds.library.retail:Retail", "tasks.worlds.library.retail:Retail"]))
    with pytest.raises(BadInput, match=r"NAME = '' must be a word"):
        freeze.check(freeze.Params(modules=["tasks.worlds.api.state:State"]))
    freeze.check(freeze.Params(modules=["tests.flows.shop:Shop", "tests.flows.shop:Kiosk"]))
