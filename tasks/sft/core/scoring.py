"""What a model says of the trained tokens of a batch, and nothing of the others: on a CPU the logits of a prompt cost more than it."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.contract.computed import TOKENS
from tasks.sft.core.data import IGNORED
from tasks.training import packs

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    Batch = Mapping[str, Tensor]
    """As `data.collate` makes it: input_ids (b, t), labels (b, t), row_weights (b,); or a pack, as `passes.parts` makes it."""


@dataclass(frozen=True)
class Tokens:
    """The trained tokens of one batch, n of them, in the order of rows and positions.

    logits: (n, v) before the softmax, with gradient. targets: (n,) ids. rows: (n,) index of the row in the batch.
    row_weights: (n,) the row's weight, once per token. nll: (n,) negative log-likelihood in nats, with gradient.
    teacher_logits: (n, v) of the method's teacher, without gradient; None where it has none.
    """

    logits: Tensor
    targets: Tensor
    rows: Tensor
    row_weights: Tensor
    nll: Tensor
    teacher_logits: Tensor | None = None


def prepare_scoring(model: PreTrainedModel) -> PreTrainedModel:
    """Teach `model(input_ids=..., scored=...)` the logits (n, v) of the scored positions alone, and with `head=False` their last hidden
    states (n, d); other calls stay as they are. Returns the model.

    It goes through `forward`, so that wrappers for several GPUs see the call. scored: (b, t), true where the *next* token counts.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    plain_forward = base.forward

    def forward(self: PreTrainedModel, *args: Any, scored: Tensor | None = None, head: bool = True, **kwargs: Any) -> Any:
        if scored is None:
            return plain_forward(*args, **kwargs)
        hidden = self.base_model(*args, use_cache=False, **kwargs).last_hidden_state[scored]
        return self.get_output_embeddings()(hidden) if head else hidden

    base.forward = types.MethodType(forward, base)
    return model


def scored_of(batch: Batch) -> Tensor:
    """(b, t), true where the next token is trained; n positions in all."""
    import torch

    return torch.nn.functional.pad(batch["labels"][:, 1:] != IGNORED, (0, 1))


def logits_of(model: PreTrainedModel, batch: Batch) -> Tensor:
    """(n, v) float32: what the model says at each position before a trained token."""
    logits: Tensor = model(input_ids=_ids(batch), scored=scored_of(batch), **_within(model, batch)).float()
    return logits


def hidden_of(model: PreTrainedModel, batch: Batch, scored: Tensor) -> Tensor:
    """(n, d) float32: the last hidden states at the scored positions (b, t), for an objective over a head of the method's own."""
    hidden: Tensor = model(input_ids=_ids(batch), scored=scored, head=False, **_within(model, batch)).float()
    return hidden


def _ids(batch: Batch) -> Tensor:
    """(b, t) of what is passed now, and counted."""
    import torch

    TOKENS["trained" if torch.is_grad_enabled() else "scored"] += batch["input_ids"].numel()
    return batch["input_ids"]


def _within(model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
    """What keeps the rows of a pack apart; nothing for other batches."""
    return packs.attention(model, batch["places"][0], batch["segments"][0]) if "segments" in batch else {}


def rows_of(batch: Batch) -> Tensor:
    """(n,) of which row of the batch each trained token is."""
    import torch

    if "segments" in batch:
        return batch["segments"][:, 1:][batch["labels"][:, 1:] != IGNORED] - 1
    return torch.nonzero(scored_of(batch))[:, 0]


def tokens_of(model: PreTrainedModel, batch: Batch, teacher_logits: Tensor | None = None) -> Tokens:
    """The trained tokens of a collated batch, scored by the model."""
    import torch

    logits = logits_of(model, batch)
    targets = batch["labels"][:, 1:]
    wanted = targets[targets != IGNORED]
    rows = rows_of(batch)
    nll = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
    return Tokens(logits, wanted, rows, batch["row_weights"][rows], nll, teacher_logits)
