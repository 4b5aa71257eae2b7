"""How well a model predicts the scored tokens of some rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from flows.recipes.ground.training import Batch


@dataclass(frozen=True)
class Score:
    """accuracy: share of scored tokens that are the likeliest. exact: share of rows in which all of them are (what greedy decoding
    would get right, since it repeats the row as long as it is right). loss: nats a scored token. n: scored tokens."""

    accuracy: float
    exact: float
    loss: float
    n: int


def score(model: PreTrainedModel, batch: Batch) -> Score:
    """Score a model on rows that have at least one scored token each."""
    import torch

    from flows.recipes.ground.training import logits_of

    with torch.no_grad():
        logits, targets = logits_of(model, batch)
        right = logits.argmax(-1) == targets
        loss = torch.nn.functional.cross_entropy(logits, targets)
    rows = batch.scored.nonzero()[:, 0]
    wrong = torch.zeros(len(batch.ids), dtype=torch.long).index_add_(0, rows, (~right).long())
    return Score(right.float().mean().item(), (wrong == 0).float().mean().item(), loss.item(), len(targets))


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean of at least one value."""
    return sum(values) / len(values)
