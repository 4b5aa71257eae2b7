"""A micro model in the real retail world for the tests of the room: random weights never solve a problem, so they are paid for little."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tasks.contract.context import Context
from tasks.players import scripted
from tasks.players.acting import plain
from tasks.rl import Inputs, Loop
from tasks.rl.core.batch import Batch, Row, collate
from tasks.rl.core.hooks import Played
from tasks.rl.core.pool import Group, spread
from tasks.rl.core.reward_model import RewardModel
from tasks.rl.grpo import Grpo
from tasks.worlds.api.frozen import freeze_world
from tasks.worlds.api.loading import world_class
from tasks.worlds.api.runtime import World
from tests.playing import checkpoint_agent, playing
from tests.rollout import tiny

LOOP = Loop(
    steps=4,
    groups=2,
    group_size=4,
    lr=3e-3,
    screen_problems=6,
    screen_trials=2,
    pool=6,
    validate_every=2,
    validation_problems=6,
    rows=8,
    max_turns=3,
    max_turn_tokens=10,
    max_episode_tokens=128,
)
SHORT = LOOP.model_copy(update={"steps": 2, "max_lost": 1.0})
"""Two steps, validated once at their end."""


class Brief(Grpo):
    """GRPO that is paid for saying little."""

    def reward_terms(self, played: Sequence[Played], model: RewardModel | None) -> list[Mapping[str, float]]:
        return [{"brief": -sum(len(turn["ids"]) for turn in one.talk.turns) / 100} for one in played]

    def keep(self, group: Group) -> bool:
        return spread(group.rewards)


@cache
def world() -> World:
    address = "tasks.worlds.library.retail:Retail"
    return World.build(world_class(address), size=60, seed=1, address=address)


def frozen(root: Path) -> Inputs:
    """The room's inputs: the frozen world and a start checkpoint."""
    freeze_world(world(), root / "worlds" / "retail")
    tiny.saved(root / "sft" / "model", layers=1, end=6.0)
    return Inputs(root / "worlds", root / "sft", "retail")


def context(root: Path, **more: Any) -> Context:
    out = root / "out"
    out.mkdir(parents=True, exist_ok=True)
    role = more.pop("role", lambda name, world_name="": scripted.client(name, world(), {}, 0))
    players = playing(role, more.pop("way", plain), more.pop("of_checkpoint", checkpoint_agent))
    return Context(seed=5, out=out, scratch=root / "scratch", **players, **more)


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def killed_at(step: int) -> Callable[[str, float, int], None]:
    """A log in which the run is interrupted at a step."""

    def log(name: str, value: float, now: int) -> None:
        if name == "rl/entropy" and now == step:
            raise KeyboardInterrupt

    return log


def batch(rewards: Sequence[float], groups: Sequence[int] = (), turns: Sequence[Sequence[float]] = ()) -> Batch:
    """Rows of two-token turns, one turn or as many as `turns` gives rewards for; each after one token that was read."""
    rows = []
    for index, reward in enumerate(rewards):
        own = tuple(turns[index]) if turns else (reward,)
        said = [{"prompt_ids": [1], "ids": [2, 3], "logprobs": [-1.0, -1.0]} for _ in own]
        rows.append(Row(said, reward, own, group=groups[index] if groups else 0))
    return collate(rows, pad=0, step=0, steps=1, lines=())
