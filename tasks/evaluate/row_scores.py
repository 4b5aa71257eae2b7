"""Scores every model on held-out rows of environments, teacher-forced: how well it predicts the tokens that train.

The rows are those that a step of room generate left (`generate.expert_rows`), of one split. Each trained token is predicted from the
row's own tokens before it. `exact`, whether all of them are the likeliest, is what greedy decoding would get right, since it repeats
the row as long as it is right. It leaves `scores.parquet` (`schemas.SCORE`: model, part, family, row) and figures made of it.

Cost: one forward pass of all rows for each model.
"""

from __future__ import annotations

from typing import Any

from tasks.contract.context import Context
from tasks.evaluate import Inputs
from tasks.evaluate.core.score_files import write_scores
from tasks.evaluate.core.scored_rows import Chosen, rows_of, scores_of, words_of

TITLE = "Scores on held-out rows"
PAPER = ""
SLUG = ""
GROUND = "environments"


class Params(Chosen):
    """Which rows, and how many at once."""


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """Leave scores.parquet and figures; returns what is in metrics.json. BadInput for rows or parts that are not there, and for words
    that a model does not know."""
    import torch

    torch.set_num_threads(ctx.threads)
    rows, words = rows_of(inputs, params), words_of(inputs)
    scores: list[dict[str, Any]] = []
    for place, (name, folder) in enumerate(inputs.models.items()):
        scores += scores_of(folder, rows, words, params, ctx, name)
        ctx.progress(place + 1, len(inputs.models), "models scored")
    return write_scores(ctx.out, scores, inputs.candidate, ctx.seed_for("intervals"))
