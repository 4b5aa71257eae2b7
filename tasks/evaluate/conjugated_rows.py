"""Scores models on held-out rows as they are and in other words: was what fine-tuning took away lost, or only suppressed?

Paper: Understanding Catastrophic Forgetting in Language Models via Implicit Inference, https://arxiv.org/abs/2309.10105. A conjugation
says the rows in other words that leave the task what it is and look less like what was fine-tuned on. The first model is the parent,
the others are tuned. Of each, part of the rows and conjugation, by accuracies a0 (parent), a0c (parent in other words), a and ac:

    forgotten = a0 - a        cost = a0 - a0c        gain = ac - a        recovered = gain / (a0c - a)

and what they say: `nothing_forgotten`; `cannot_tell`, where the other words cost the parent as much as was forgotten; `suppressed`,
where the gain is above 0 by its interval and at least half is recovered; else `not_recovered`: lost, or fine-tuning has reached the
other words too. scores.parquet has `MODEL` for rows as they are and `MODEL.CONJUGATION` for the same rows in other words.

Departures:
1. Other words are a declared dictionary (`tasks.contract.conjugation`), word for word: a row keeps its length, and every answer can be
   said back, so none is lost in parsing. Scores of rows in other words are those of the answers said back.
2. Rows are teacher-forced (`row_scores`); whoever acts in other words is `tasks/agents/conjugate_prompting.py`.
3. The verdict's thresholds (0.02, one half) are ours.

Cost: a forward pass of all rows for each model, and one more for each conjugation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from tasks.contract.conjugation import Conjugation
from tasks.contract.context import Context
from tasks.contract.params import BadInput
from tasks.evaluate import Inputs
from tasks.evaluate.core.estimates import DIGITS, difference
from tasks.evaluate.core.score_files import RESAMPLES, write_scores
from tasks.evaluate.core.scored_rows import Chosen, Rows, rows_of, scores_of, words_of

if TYPE_CHECKING:
    from tasks.environments.tokens import Vocabulary

TITLE = "Held-out rows in other words: lost or suppressed"
PAPER = "https://arxiv.org/abs/2309.10105"
SLUG = "conjugate_prompting"
GROUND = "environments"


class Params(Chosen):
    """Which rows, and in which other words."""

    conjugations: dict[str, dict[str, str]] = Field({}, description="name -> word -> what stands for it")
    margin: float = Field(0.02, ge=0, le=1, description="what accuracy may fall before something counts as forgotten; ours")
    recovered: float = Field(0.5, ge=0, le=1, description="share of it that must come back to count as suppressed; ours")


def check(params: Params) -> None:
    """Raise BadInput where there are no other words, and for a dictionary that changes nothing or cannot be taken back."""
    if not params.conjugations:
        raise BadInput("conjugations is empty, so nothing would be scored in other words. Name one: {swap: {a0: b0, a1: b1}}.")
    for name, words in params.conjugations.items():
        if not name.isidentifier():
            raise BadInput(f"conjugations: {name!r} is no name. Allowed: letters, digits and _.")
        try:
            Conjugation.of(words)
        except BadInput as mistake:
            raise BadInput(f"conjugations.{name}: {mistake}") from None


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """Leave scores.parquet and figures; returns what is in metrics.json. BadInput for rows or parts that are not there, for other words
    that the rows' vocabulary lacks or that change nothing, and for words that a model does not know."""
    import torch

    torch.set_num_threads(ctx.threads)
    rows, words = rows_of(inputs, params), words_of(inputs)
    other = {name: in_other_words(rows, words, Conjugation.of(own), name) for name, own in params.conjugations.items()}
    scores: list[dict[str, Any]] = []
    for place, (model, folder) in enumerate(inputs.models.items()):
        scores += scores_of(folder, rows, words, params, ctx, model)
        for name, own in other.items():
            scores += scores_of(folder, own, words, params, ctx, f"{model}.{name}")
        ctx.progress(place + 1, len(inputs.models), "models scored")
    parent, *tuned = inputs.models
    found = {model: forgotten(scores, parent, model, params, ctx.seed_for("intervals")) for model in tuned}
    return write_scores(ctx.out, scores, inputs.candidate, ctx.seed_for("intervals"), {"forgotten": found})


def in_other_words(rows: Rows, words: Vocabulary, conjugation: Conjugation, name: str) -> list[dict[str, Any]]:
    """The rows with every word said in the conjugation's. name: its own, for messages. BadInput for a stand-in that is no word of the
    vocabulary, and where no row has any of the words."""
    from tasks.environments.tokens import SPECIALS

    if missing := [one for one in conjugation.words if one not in words.words]:
        raise BadInput(f"conjugations.{name}: the rows' vocabulary has no word {missing[0]!r}, so no model could read it.")
    there = [*range(len(SPECIALS)), *(words.ids(conjugation.there(word))[0] for word in words.words)]
    found = [{**row, "ids": [there[one] for one in row["ids"]]} for row in rows]
    if all(one["ids"] == row["ids"] for one, row in zip(found, rows, strict=True)):
        raise BadInput(f"conjugations.{name}: no row has any of its words, so nothing would be said in other words.")
    return found


def forgotten(scores: Rows, parent: str, tuned: str, params: Params, seed: int) -> dict[str, Any]:
    """part -> conjugation -> what a tuned model forgot and what came back (see the header), of rows of scores.parquet."""
    found: dict[str, Any] = {}
    for part in dict.fromkeys(row["part"] for row in scores):
        accuracy = {
            model: np.array([row["accuracy"] for row in scores if row["model"] == model and row["part"] == part])
            for model in (parent, tuned, *(f"{one}.{name}" for one in (parent, tuned) for name in params.conjugations))
        }
        found[part] = {
            name: compared([accuracy[one] for one in (parent, f"{parent}.{name}", tuned, f"{tuned}.{name}")], params, seed)
            for name in params.conjugations
        }
    return found


def compared(accuracies: Sequence[np.ndarray[Any, Any]], params: Params, seed: int) -> Mapping[str, Any]:
    """Figures and verdict of one part and conjugation. accuracies: (n,) of the same rows: parent, parent in other words, tuned,
    tuned in other words."""
    a0, a0c, a, ac = (float(one.mean()) for one in accuracies)
    gain = difference([accuracies[3]], [accuracies[2]], 1, seed=seed, resamples=RESAMPLES)
    recovered = (ac - a) / (a0c - a) if a0c > a else None
    if a0 - a <= params.margin:
        says = "nothing_forgotten"
    elif recovered is None or a0 - a0c >= a0 - a:
        says = "cannot_tell"
    else:
        says = "suppressed" if gain["low"] > 0 and recovered >= params.recovered else "not_recovered"
    figures = {"parent": a0, "parent_in_other_words": a0c, "tuned": a, "tuned_in_other_words": ac}
    rounded = {key: round(value, DIGITS) for key, value in {**figures, "forgotten": a0 - a, "cost": a0 - a0c}.items()}
    came_back = {} if recovered is None else {"recovered": round(recovered, DIGITS)}
    return {**rounded, **{f"gain_{key}": gain[key] for key in ("mean", "low", "high")}, **came_back, "says": says}
