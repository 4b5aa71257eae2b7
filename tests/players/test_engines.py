"""Engines are chosen by params, and say the same tokens."""

from __future__ import annotations

import pytest

from tasks.contract.params import BadInput, Params
from tasks.engine import methods
from tasks.engine.closure import closure
from tasks.engine.dvc_yaml import listed
from tasks.engine.key import params_of
from tasks.engine.settings import Settings, load
from tests.conftest import ROOT


def with_engine(section: object, stage: str = "rl") -> Settings:
    settings = load(ROOT, "smoke")
    return Settings(ROOT, {**settings.tree, stage: {**settings.tree[stage], "engine": section}})


@pytest.mark.parametrize("name", methods.engines())
def test_an_engine_states_what_it_needs(name: str) -> None:
    module = methods.engine_module(name)
    assert issubclass(module.Params, Params) and callable(module.opened) and set(module.Params.model_fields) >= module.WAYS


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"method": "owm"}, r"rl.engine.method: no engine 'owm'. Did you mean 'own'\? Known: own"),
        (None, r"rl.engine.method is missing: with what its checkpoints generate. Write engine: {method: own}"),
        ({"method": "own", "memory": 2}, "rl.engine: unknown key 'memory'. Known: method, own"),
        ({"method": "own", "own": {"memory": -1}}, "rl.engine.own: .*memory"),
    ],
)
def test_bad_params_are_named(section: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        with_engine(section).engine("rl")


def test_only_rooms_whose_checkpoints_play_have_an_engine() -> None:
    assert load(ROOT, "smoke").engine("generate") is None
    with pytest.raises(BadInput, match="generate: unknown key 'engine'"):
        with_engine({"method": "own"}, "generate").method("generate")


@pytest.mark.parametrize("name", methods.engines())
def test_a_key_holds_the_chosen_engines_code_alone(name: str) -> None:
    settings = with_engine({"method": name, name: NEEDED.get(name, {})})
    about = listed(settings)["rl"]
    others = [f"tasks/players/local/{other}" for other in methods.engines() if other != name]
    assert f"tasks/players/local/{name}" in about.code and f"tasks/players/local/{name}/__init__.py" in closure(settings, about)
    assert not any(path.startswith(other) for other in others for path in (*about.code, *closure(settings, about)))


NEEDED: dict[str, dict[str, object]] = {}
"""Params without which an engine cannot be chosen."""


def test_what_changes_no_answer_is_in_no_key() -> None:
    plain, roomy = ({"method": "own", "own": {"memory": memory}} for memory in (None, 2.0))
    settings = [with_engine(section) for section in (plain, roomy)]
    assert settings[0].engine("rl") != settings[1].engine("rl")
    assert params_of(settings[0], listed(settings[0])["rl"]) == params_of(settings[1], listed(settings[1])["rl"])
