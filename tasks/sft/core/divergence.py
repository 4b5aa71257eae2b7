"""A training whose loss or gradient is no finite number stops at that step, by the names of the step's rows: every later step would
be lost. The states before it stay where they are, for a rerun to go on from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.checkpoints.saving import all_finite
from tasks.contract.params import StageFailed
from tasks.sft.core.data import Row, collate
from tasks.sft.core.params import Loop
from tasks.sft.core.scoring import tokens_of
from tasks.training.distributed import full

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

NAMED = 10
"""Rows that a message names."""


def check_gradient(model: PreTrainedModel, loss: Tensor, step: str, rows: Sequence[Row], pad: int, loop: Loop, states: Path) -> None:
    """StageFailed when a step's loss, or the norm of the gradient that it left in the parameters, is not finite. The weights have not
    moved by then.

    step: in words. rows: its rows. states: folder of the resume states.
    """
    import torch

    norm = full(torch.nn.utils.get_total_norm([one.grad for one in model.parameters() if one.grad is not None]))
    if not bool(torch.isfinite(norm) & torch.isfinite(loss)):
        what = f"the gradient's norm is {norm.item():g}" if math.isfinite(loss.item()) else f"the loss is {loss.item():g}"
        raise StageFailed(f"sft: {step}: {what}. {_culprits(model, rows, pad)} {_kept(states)} {_advice(loop)}")


def check_validation(total: Tensor, rows: Sequence[Row], loop: Loop) -> None:
    """StageFailed when what a batch of the validation split adds up to is not finite."""
    if not math.isfinite(float(total)):
        raise StageFailed(
            f"sft: the validation loss of the rows {_names(rows)} is {float(total):g}. {_advice(loop)} Or look at these rows."
        )


def check_weights(model: PreTrainedModel, step: int, states: Path, loop: Loop) -> None:
    """StageFailed instead of a resume state from which no run could go on."""
    if not all_finite(model):
        raise StageFailed(f"sft: after step {step} weights are NaN or infinite. {_kept(states)} {_advice(loop)}")


def _culprits(model: PreTrainedModel, rows: Sequence[Row], pad: int) -> str:
    """The step's rows, and which of them the model itself cannot score."""
    import torch

    def scored(row: Row) -> bool:
        batch = {name: value.to(model.device) for name, value in collate([row], pad).items()}
        return bool(torch.isfinite(tokens_of(model, batch).nll).all())

    with torch.no_grad():
        broken = [row for row in rows if not scored(row)]
    if not broken:
        return f"Its rows: {_names(rows)}; the model scores each of them alone, so look at the method's loss and weights."
    return f"Of its {len(rows)} rows the model's likelihood is no number for {_names(broken)}."


def _names(rows: Sequence[Row]) -> str:
    more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    return ", ".join(row.name for row in rows[:NAMED]) + more


def _kept(states: Path) -> str:
    newest = max((int(path.name.split("-")[1]) for path in states.glob("checkpoint-*")), default=0)
    return f"The state after step {newest} is kept ({states})." if newest else "No state was saved before it."


def _advice(loop: Loop) -> str:
    rate = f"muon_rate ({loop.muon_rate:g}) or learning_rate" if loop.optimizer == "muon" else "learning_rate"
    return f"Lower {rate} ({loop.learning_rate:g}) or max_norm ({loop.max_norm:g}), or leave such a row out (filter)."
