"""Room rl: a method reinforces a checkpoint in one world by playing it.

The room owns the training loop (`core/loop.py`, its params: `Loop`); a method is `hooks(params, ctx) -> Hooks`, what it changes in it
(`core/hooks.py`). The loop leaves in `ctx.out`: `model/` (an adapter or a whole checkpoint: `Loop.adapter`), `curves.csv`, and
`adapter/` where one was merged into `model/`, and returns figures. One call trains one specialist; the
stage runs one per world, each cached on its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contract.params import BadInput
from tasks.contract.planned import Planned
from tasks.rl.core.params import Loop as Loop
from tasks.rl.core.params import by_checkpoints as by_checkpoints
from tasks.rl.core.params import caps as caps
from tasks.rl.core.params import check as check
from tasks.rl.core.params import conversations as conversations

if TYPE_CHECKING:
    from tasks.worlds.api.runtime import World

INPUTS = ("worlds", "generate", "models", "others")
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
    """worlds: folder of frozen worlds. sft: folder with model/. world: name of the world to specialise in. blueprints: folder with
    blueprints.parquet, of a world that draws no problems of its own.

    others: name of each further step whose result this one reads -> its folder. The loop knows `reward`, a reward model's model/
    (`core/reward_model.py`; SALMON, DPA), and `reference`, the model/ to stay close to in place of sft's (direct_rlhf); a method may
    train on rows of any (`Hooks.stored_rows`).
    """

    worlds: Path
    sft: Path
    world: str
    blueprints: Path | None = None
    others: Mapping[str, Path] = field(default_factory=dict)


def check_road(step: Planned) -> None:
    """Refuse a step whose worlds get no problems to train on or to choose a checkpoint by."""
    made: Any = step.reading("generate")
    if not step.proven or made is None:
        return
    worlds = ", ".join(step.proven)
    if getattr(made.params, "lineages", "train") != "train":
        raise BadInput(f"{step.name}: {worlds} draw no problems of their own, and {made.name} proves those of test alone (lineages).")
    if not getattr(made.params, "validation", 1):
        raise BadInput(
            f"{step.name}: {worlds} draw no problems of their own, and {made.name} proves none of validation (validation = 0)."
        )


def too_few_given(params: Loop, worlds: Sequence[World], unseen: Sequence[World], seed: int) -> Iterator[str]:
    """What is missing in worlds whose problems were given: some to train on, and some to choose a checkpoint by."""
    for world in worlds:
        for split, what in (("train", "to train on"), ("validation", "to choose a checkpoint by")):
            if all(one.passive for one in world.foreign.of_split(world, split)):
                yield (
                    f"world {world.name}: {world.foreign.where} gives no problem of split {split!r} {what} that doing nothing does not "
                    "solve. Add lines."
                )


def leaves(params: Any, worlds: Sequence[str]) -> list[str]:
    """The checkpoints it leaves: "" is `model/`, a name `<name>/model`. params: of the room's loop if it has one, else the method's."""
    return sorted(worlds)
