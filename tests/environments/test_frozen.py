"""A frozen environment is the same when it is loaded; one that was altered, or whose code has changed, is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.contract.params import BadInput
from tasks.environments import frozen

SMALL = {"maps": 2, "symbols": 5}


def test_a_frozen_environment_plays_as_before(tmp_path: Path) -> None:
    made = frozen.make("maps", SMALL)
    frozen.freeze(made, tmp_path / "maps")
    frozen.freeze(frozen.make("other", {"environment": "maps", "symbols": 7}), tmp_path / "other")
    found = frozen.load_all(tmp_path)
    assert list(found) == ["maps", "other"] and found["other"].params.model_dump()["symbols"] == 7
    assert found["maps"].reset(range(9)).tolist() == made.reset(range(9)).tolist()
    assert found["maps"].params == made.params and found["maps"].words == made.words


def test_what_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(BadInput, match=r"there is no environment 'mapz'. Did you mean 'maps'\?.*`environment: MODULE`"):
        frozen.make("mapz", {})
    with pytest.raises(BadInput, match=r"environments.maps: unknown key 'symbol'. Did you mean 'symbols'\?"):
        frozen.make("maps", {"symbol": 3})


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("words", ["a"], "environment.json was altered after it was frozen"),
        ("code", "0" * 32, "the code of environment 'maps' has changed since it was frozen"),
        ("format", 0, "format 0, this version reads 1"),
        ("environment", "gone", "the code of environment 'gone' has changed"),
    ],
)
def test_an_altered_folder_is_refused(tmp_path: Path, key: str, value: object, said: str) -> None:
    frozen.freeze(frozen.make("maps", SMALL), tmp_path / "maps")
    file = tmp_path / "maps" / frozen.FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with pytest.raises(BadInput, match=said):
        frozen.load(tmp_path / "maps")


def test_a_folder_without_environments_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"holds no frozen environment. `worlds.method: environments` freezes some."):
        frozen.load_all(tmp_path)


def test_the_hash_of_the_code_hangs_on_what_a_module_reaches() -> None:
    assert frozen.code_hash("maps") == frozen.code_hash("maps") and len(frozen.code_hash("maps")) == 32
