"""Room rl: a method reinforces a checkpoint in one world by playing it.

The room owns the training loop (`core/loop.py`, its params: `Loop`); a method is `hooks(params, ctx) -> Hooks`, what it changes in it
(`core/hooks.py`). The loop leaves in `ctx.out`: `model/` (an adapter or a whole checkpoint: `Loop.adapter`), `curves.csv`, and
`adapter/` where one was merged into `model/`, and returns figures. One call trains one specialist; the
stage runs one per world, each cached on its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.rl.core.params import Loop as Loop
from tasks.rl.core.params import by_checkpoints as by_checkpoints
from tasks.rl.core.params import caps as caps
from tasks.rl.core.params import check as check
from tasks.rl.core.params import conversations as conversations

INPUTS = ("worlds", "models", "others")
"""What a step in this room reads: the result of one step of each room named here; models: those that leave checkpoints, the first of
which it starts from; others: whatever its method asks for."""
READS = ("threads", "instructions", "device", "prompt")
"""Shared settings of params/pipeline.yaml that it reads, beside the seed."""
ROLES = ("human",)
"""Roles whose players it asks."""
PLOTS = ({"title": "reward, mean of the worlds", "file": "rewards.csv", "x": "step", "y": "mean"},)
"""Curves and bars for `dvc plots show`: files of its artifact, and what DVC draws of them."""
PLAYS = "checkpoints"
"""Who acts in its methods: the players of "roles", or "checkpoints" as well. `<step>.agents` chooses how (`tasks/agents`)."""


@dataclass(frozen=True)
class Inputs:
    """worlds: folder of frozen worlds. sft: folder with model/. world: name of the world to specialise in.

    others: name of each further step whose result this one reads -> its folder. The loop knows `reward`, a reward model's model/
    (`core/reward_model.py`; SALMON, DPA), and `reference`, the model/ to stay close to in place of sft's (direct_rlhf); a method may
    train on rows of any (`Hooks.stored_rows`).
    """

    worlds: Path
    sft: Path
    world: str
    others: Mapping[str, Path] = field(default_factory=dict)


def leaves(params: Any, worlds: Sequence[str]) -> list[str]:
    """The checkpoints it leaves: "" is `model/`, a name `<name>/model`. params: of the room's loop if it has one, else the method's."""
    return sorted(worlds)
