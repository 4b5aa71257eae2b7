"""React is the player itself; every way of acting says what it is."""

from __future__ import annotations

import pytest

from tasks.contract.client import Client
from tasks.contract.params import BadInput, Params
from tasks.engine import methods
from tasks.engine.settings import Settings, load
from tasks.players.acting import acting
from tests.conftest import ROOT

KNOWN = ", ".join(methods.names(methods.AGENTS))


def test_react_is_the_player() -> None:
    player = object()
    assert methods.way({"method": "react", "params": {}})(player) is player  # type: ignore[arg-type]


@pytest.mark.parametrize("name", methods.names(methods.AGENTS))
def test_a_way_states_what_it_is(name: str) -> None:
    module = methods.load(methods.AGENTS, name)
    assert issubclass(module.Params, Params) and callable(module.agent)
    module.Params()
    assert module.PAPER.startswith("https://arxiv.org/abs/") and len((module.__doc__ or "").split()) > 30
    assert (ROOT / "tests" / "agents" / f"test_{name}.py").is_file()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"method": "reakt"}, rf"rl.agents.method: no way of acting 'reakt'. Did you mean 'react'\? Known: {KNOWN}"),
        ({}, r"rl.agents.method is missing: how its agents act. Write agents: {method: react}"),
        (None, "rl.agents.method is missing"),
        ({"method": "react", "tries": 2}, f"rl.agents: unknown key 'tries'. Known: method, {KNOWN}"),
        ({"method": "react", "react": {"tries": 2}}, "rl.agents.react: unknown key 'tries'"),
        ({"method": "react", "react": 2}, "rl.agents.react: expected a mapping of params, got 2"),
    ],
)
def test_bad_params_are_named(section: object, message: str) -> None:
    settings = load(ROOT, "smoke")
    wrong = Settings(ROOT, {**settings.tree, "rl": {**settings.tree["rl"], "agents": section}})
    with pytest.raises(BadInput, match=message):
        wrong.agents("rl")


def test_only_rooms_that_play_have_a_way() -> None:
    settings = load(ROOT, "smoke")
    assert settings.agents("rl") == {"method": "react", "params": {}} and settings.agents("sft") is None
    with pytest.raises(BadInput, match="sft: unknown key 'agents'"):
        Settings(ROOT, {**settings.tree, "sft": {**settings.tree["sft"], "agents": {"method": "react"}}}).method("sft")


def test_a_checkpoint_acts_only_where_the_room_states_it() -> None:
    """What generate leaves does not depend on the decoder of checkpoints, so it may not use it unseen."""
    assert [methods.of_checkpoint(room, _nobody) is None for room in ("generate", "sft", "rl", "evaluate")] == [
        True,
        True,
        False,
        False,
    ]
    with pytest.raises(LookupError, match='the room\'s interface does not say PLAYS = "checkpoints"'):
        acting(_nobody, {}, of_checkpoint=methods.of_checkpoint("generate", _nobody))(checkpoint=(None, None))


def _nobody(name: str, world: str = "") -> Client:
    raise LookupError(name)
