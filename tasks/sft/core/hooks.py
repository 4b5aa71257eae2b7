"""What a paper of this room may change in the training loop; everything else is the loop's.

A hook is a plain function; a method fills those that it needs: `Hooks(token_weight=mine)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Tokens:
    """The trained tokens of one batch, n of them, in the order of rows and positions.

    logits: (n, v) before the softmax, with gradient. targets: (n,) ids. rows: (n,) index of the row in the batch.
    row_weights: (n,) the row's weight, once per token. nll: (n,) negative log-likelihood in nats, with gradient.
    """

    logits: Tensor
    targets: Tensor
    rows: Tensor
    row_weights: Tensor
    nll: Tensor


def _as_it_is(model: PreTrainedModel) -> PreTrainedModel:
    """All parameters train and start where the base left them; the trained model is saved as it is."""
    return model


def _one(row: Mapping[str, Any]) -> float:
    """Every row counts the same."""
    return 1.0


@dataclass(frozen=True)
class Hooks:
    """The narrow hooks of a method.

    prepare:      which parameters train and how they start: the loaded base -> the model to train (frozen parts, adapters).
    finish:       the trained model -> the model to save (adapters merged).
    row_weight:   a row of `schemas.DATASET` -> its weight >= 0. The loss is a mean weighted by it.
    token_weight: the batch's tokens -> (n,) weights >= 0, or None for all ones. They are detached and scale the loss without
                  entering its denominator (as in DFT, https://arxiv.org/abs/2508.05629, section 3).
    loss_term:    (model, the batch's tokens) -> a scalar added to the loss, or None.
    """

    prepare: Callable[[PreTrainedModel], PreTrainedModel] = _as_it_is
    finish: Callable[[PreTrainedModel], PreTrainedModel] = _as_it_is
    row_weight: Callable[[Mapping[str, Any]], float] = _one
    token_weight: Callable[[Tokens], Tensor] | None = None
    loss_term: Callable[[PreTrainedModel, Tokens], Tensor] | None = None


def total_loss(tokens: Tokens, model: PreTrainedModel, hooks: Hooks) -> Tensor:
    """sum_j r_j w_j nll_j / sum_j r_j + term, over the n tokens of a batch; r: row weight, w: token weight.

    A batch whose rows all weigh nothing costs nothing (and gives a zero gradient).
    """
    loss = tokens.row_weights * tokens.nll
    if hooks.token_weight is not None:
        loss = loss * hooks.token_weight(tokens).detach()
    total = loss.sum() / tokens.row_weights.sum().clamp(min=1e-8)
    return total if hooks.loss_term is None else total + hooks.loss_term(model, tokens)
