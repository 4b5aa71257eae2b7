"""Room generate: a method makes rows out of worlds, and proves them.

It leaves in `ctx.out`: `blueprints.parquet` (`schemas.BLUEPRINT`, every attempt, accepted or refused with its reason) and
`trajectories.parquet` (`schemas.TRAJECTORY`, every conversation played, won or lost); a method with an example bank also `bank.json`. A
method on environments leaves `rows.parquet` (`schemas.TOKEN_ROW`) and `words.json` instead.
It returns counts by reason, which add up, and "stopped": why it ended before everything was made, or "".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

INPUTS = ("worlds",)
"""What a step in this room reads: the result of one step of each room named here; model: one that leaves a checkpoint; models: some."""
FILES = ("params/bank.json",)
"""Other files of the project that it reads."""
READS = ("device", "prompt", "budget")
"""Shared settings of params/pipeline.yaml that it reads, beside the seed."""
ROLES = ("generator", "judge", "feedback", "recombiner", "human", "human_critic", "agent")
"""Roles whose players it asks."""
PLAYS = "roles"
"""Who acts in its methods: the players of "roles", or "checkpoints" as well. `<step>.agents` chooses how (`tasks/agents`)."""


@dataclass(frozen=True)
class Inputs:
    """worlds: folder of frozen worlds (`tasks.worlds.api.frozen.load_all`). bank: file with pinned examples; without one, or
    with {} in it, the bank grows from what the run accepts. source: what lies where the params of a method say that it reads something
    from outside (its `PLACE`), a folder or a file; None for a method that does not."""

    worlds: Path
    bank: Path | None = None
    source: Path | None = None
