"""Environments frozen by the worlds stage: one folder each, the same bytes again, and mistakes of the params told by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.contract.params import BadInput
from tasks.environments import frozen
from tasks.worlds.environments import Params, check, names
from tests.base.test_tiny_qwen3 import same
from tests.environments.rooms import Rooms

SMOKE = {"environments": {"maps": {"maps": 2, "symbols": 5, "questions": 3}}}


def test_one_folder_an_environment_and_the_same_bytes_again(tmp_path: Path) -> None:
    rooms = Rooms(tmp_path)
    settings = {"maps": {}, "small": {"environment": "maps", "maps": 2, "symbols": 5}}
    figures = rooms.worlds(settings)
    assert figures["environments"]["small"] == {"words": 7, "actions": 5, "steps": 8, "families": 2} and figures["words"] == 8 + 31
    assert list(frozen.load_all(tmp_path / "worlds")) == names(Params(environments=settings)) == ["maps", "small"]
    rooms.worlds(dict(reversed(settings.items())), "again")
    assert same(tmp_path / "worlds", tmp_path / "again")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mapz": {}}, "there is no environment 'mapz'. Did you mean 'maps'"),
        ({"maps": {"symbols": 1}}, r"environments.maps: symbols = 1"),
        ({"a b": {"environment": "maps"}}, "the name 'a b' must be a word"),
        ({"unseen": {"environment": "maps"}}, "the name 'unseen' must be a word"),
        ({"maps": {"symbols": 3, "maps": 9}}, "symbols = 3 allows 6 affine maps"),
    ],
)
def test_bad_params_are_told(settings: dict[str, dict[str, Any]], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        check(Params(environments=settings))
