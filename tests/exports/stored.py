"""200 stored conversations, won and lost, by the scripted agent of retail and its scripted user."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from flows.exports.elsewhere import folder
from tasks.contract.trajectory import Trajectory
from tests.worlds.players import problems, talk, world

COUNT = 200
SEED = 3
"""Of the conversations (`tests.worlds.players.talk`)."""


@cache
def stored() -> Mapping[str, Trajectory]:
    """By problem id; every second agent makes mistakes."""
    tasks = problems("retail")[:COUNT]
    errors = {name: 0.5 for name in world("retail").ERRORS}
    played = [*talk("retail", tasks[::2]), *talk("retail", tasks[1::2], errors)]
    found = {one.problem.problem_id: one for one in played}
    won = sum(reward(one) for one in found.values())
    assert len(found) == COUNT and 50 <= won <= 150, won
    return found


def reward(played: Trajectory) -> int:
    assert played.outcome is not None
    return played.outcome.reward


def rewards() -> dict[str, float]:
    return {name: float(reward(one)) for name, one in stored().items()}


def spoken(name: str) -> list[dict[str, Any]]:
    """A conversation without the system message; the user opens."""
    return [message for message in stored()[name].messages if message["role"] != "system"]


def turns(name: str) -> list[dict[str, Any]]:
    """What the agent said in a conversation."""
    return [message for message in spoken(name) if message["role"] == "assistant"]


def written(to: str, place: Path) -> Path:
    """An exported folder with the problems of these conversations."""
    out = place / "out"
    folder.export(folder.Wish(world("retail"), problems("retail")[:COUNT], SEED), to, out)
    return out
