"""Room evaluate: a method plays test problems and estimates how good each model is.

It leaves in `ctx.out`, on worlds: `trials.parquet` (`schemas.TRIAL`, one row per model, problem and trial) and `metrics.json`
(estimates with their intervals, computed from those rows alone; no times, no ids). It returns nothing that is not in metrics.json. What
DVC shows is made of them (`core/figure_files.py`): `metrics/<model>.yaml`, `headline.yaml`, `models.csv`, `families.csv`.
On environments: `scores.parquet` (`schemas.SCORE`) in place of the trials.
For `cairn run --estimate` it may tell how many conversations it plays: `conversations(params, step) -> int`, of a
`tasks.contract.planned.Planned`; for `cairn forecast`, how many of them checkpoints play, and with how many engines (each reads the
system prompts anew): `by_checkpoints(params, step) -> tuple[int, int]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

INPUTS = ("worlds", "generate", "models")
"""What a step in this room reads: the result of one step of each room named here (of generate, the one that has proven test problems);
model: one that leaves a checkpoint; models: some."""
READS = ("threads", "instructions", "device", "prompt")
"""Shared settings of params/pipeline.yaml that it reads, beside the seed."""
ROLES = ("human", "contender")
"""Roles whose players it asks; the contender's may be nobody."""
PLAYS = "checkpoints"
"""Who acts in its methods: the players of "roles", or "checkpoints" as well. `<step>.agents` chooses how (`tasks/agents`)."""
AS_SERVED = True
"""It also plays its candidate as it is served. `<step>.as_served` chooses how (`tasks/serving`)."""
READS_UNSEEN = True
"""It also plays the worlds that no other room sees (`tasks.worlds.UNSEEN`)."""
PARAMS = ("params/champion.yaml", "params/reserve_used.yaml")
"""Params files of which every key counts."""
METRICS = ("metrics", "headline.yaml")
"""Files and folders of its artifact that also stand in reports/: what `dvc metrics show` prints and `dvc exp show` gives columns to."""
PLOTS = (
    {"title": "pass^1 by model", "file": "models.csv", "template": "intervals", "x": "mean", "y": "model"},
    {"title": "pass^1 by family", "file": "families.csv", "template": "families", "x": "mean", "y": "model"},
)
"""Curves and bars for `dvc plots show`: files of its artifact, and what DVC draws of them."""


@dataclass(frozen=True)
class Inputs:
    """worlds: folder of frozen worlds, those that no training sees among them. models: name -> checkpoint folder. candidate: which of
    them may be promoted, or the contender where it alone is measured. candidate_id: identity of the candidate's artifact; seeds the
    fresh gate problems. champion: the incumbent's checkpoint folder, or None when there is no champion. anchor: that of the best
    champion so far, None where that is the champion or is not to be met. contender: whether somebody plays the role `contender`: an
    agent that is measured on the test problems beside the models, and is never promoted. reserve: folder with the proven problems
    (blueprints.parquet) of worlds that draw none; those that the candidate met, where it was evaluated before. used: ids of those
    that gates of other candidates have used."""

    worlds: Path
    models: Mapping[str, Path]
    candidate: str
    candidate_id: str
    champion: Path | None = None
    anchor: Path | None = None
    contender: bool = False
    reserve: Path | None = None
    used: Sequence[str] = ()
