"""Held-out rows of environments, as a step of room generate left them, and how well a model predicts the tokens in them that train."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from tasks.contract.context import Context
from tasks.contract.params import BadInput, StageFailed, nearest
from tasks.contract.params import Params as Base
from tasks.evaluate import Inputs

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from tasks.environments.tokens import Vocabulary

FILE = "rows.parquet"
Rows = Sequence[dict[str, Any]]
"""Rows of `schemas.TOKEN_ROW`."""


class Chosen(Base):
    """Which rows, and how many at once."""

    split: Literal["train", "validation", "test"] = Field("test", description="the rows that are scored")
    parts: list[str] = Field([], description="parts of the rows; none: all")
    batch_tokens: int = Field(16384, ge=16, le=10_000_000, description="tokens passed at once, padding included; ours")


def _folder(inputs: Inputs) -> Path:
    if inputs.reserve is None or not (inputs.reserve / FILE).is_file():
        raise BadInput(
            f"evaluate: the step of room generate among the inputs left no {FILE}. `generate.method: expert_rows` makes some."
        )
    return inputs.reserve


def words_of(inputs: Inputs) -> Vocabulary:
    """The vocabulary of the rows' ids."""
    from tasks.environments import tokens

    return tokens.read_words(_folder(inputs))


def rows_of(inputs: Inputs, params: Chosen) -> list[dict[str, Any]]:
    """The rows that are scored (`schemas.TOKEN_ROW`). BadInput for rows or parts that are not there."""
    from tasks.contract.schemas import TOKEN_ROW
    from tasks.contract.tables import read_table

    rows = read_table(_folder(inputs) / FILE, TOKEN_ROW).to_pylist()
    there = list(dict.fromkeys(row["part"] for row in rows))
    if missing := [part for part in params.parts if part not in there]:
        raise BadInput(f"parts: the rows have no part {missing[0]!r}.{nearest(missing[0], there)} They have {', '.join(there)}.")
    chosen = [row for row in rows if row["split"] == params.split and row["part"] in (params.parts or there)]
    if not chosen:
        raise BadInput(f"split: no row of the parts {', '.join(params.parts or there)} is of split {params.split}: nothing to score.")
    if idle := [row["row_id"] for row in chosen if not any(row["mask"])]:
        raise StageFailed(f"evaluate: row {idle[0]} has no trained token, so there is nothing in it to score.")
    return chosen


def scores_of(folder: Path, rows: Rows, words: Vocabulary, params: Chosen, ctx: Context, name: str) -> list[dict[str, Any]]:
    """Of each row, what it is and what `score` says of a model, for scores.parquet. name: of the model, there and in messages. BadInput
    for words that it does not know, StageFailed for a row that is longer than its context."""
    from tasks.checkpoints import adapters, folders
    from tasks.environments import tokens, whole_words

    model, tokenizer = adapters.load(folder, ctx.artifacts, ctx.device)
    there = tokens.translation(words, whole_words.known_words(tokenizer), {one for row in rows for one in row["ids"]})
    if (longest := max(len(row["ids"]) for row in rows)) > folders.context_of(model):
        raise StageFailed(f"evaluate: a row has {longest} tokens, and model {name} {folders.context_of(model)} positions.")
    own = [[there[one] for one in row["ids"]] for row in rows]
    found = score(model, own, [row["mask"] for row in rows], params.batch_tokens)
    columns = ("environment", "part", "family", "row_id")
    return [{"model": name, **{key: row[key] for key in columns}, **one} for row, one in zip(rows, found, strict=True)]


def score(
    model: PreTrainedModel, ids: Sequence[Sequence[int]], masks: Sequence[Sequence[bool]], batch_tokens: int
) -> list[dict[str, Any]]:
    """Of each row: accuracy, exact, loss (nats a token) and n, over the tokens whose mask is true. Rows of like length go together; the
    result does not hang on the batches beyond rounding."""
    import torch

    found: list[dict[str, Any]] = [{} for _ in ids]
    order = sorted(range(len(ids)), key=lambda place: (len(ids[place]), place))
    with torch.no_grad():
        while order:
            size = max(1, batch_tokens // len(ids[order[-1]]))
            batch, order = order[-size:], order[:-size]
            right, nll, rows = _predicted(model, [ids[place] for place in batch], [masks[place] for place in batch])
            for number, place in enumerate(batch):
                mine = rows == number
                found[place] = _figures(right[mine], nll[mine])
    return found


def _predicted(model: PreTrainedModel, ids: Sequence[Sequence[int]], masks: Sequence[Sequence[bool]]) -> tuple[Tensor, Tensor, Tensor]:
    """(n,) whether each masked token of the batch is the likeliest, its negative log-likelihood, and in which row it is."""
    import torch

    width = max(len(row) for row in ids)
    device = next(model.parameters()).device
    tokens = torch.tensor([[*row, *[0] * (width - len(row))] for row in ids], device=device)
    scored = torch.tensor([[*mask, *[False] * (width - len(mask))] for mask in masks], device=device)[:, 1:]
    hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1][scored]
    logits, wanted = model.get_output_embeddings()(hidden).float(), tokens[:, 1:][scored]
    nll = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
    return logits.argmax(-1) == wanted, nll, torch.nonzero(scored)[:, 0]


def _figures(right: Tensor, nll: Tensor) -> dict[str, Any]:
    """The figures of one row."""
    n = len(right)
    return {"accuracy": right.float().mean().item(), "exact": float(bool(right.all())), "loss": nll.mean().item(), "n": n}
