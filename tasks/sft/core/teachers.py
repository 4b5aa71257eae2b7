"""Whose logits may stand beside the model's own: frozen models, as `Hooks.teacher` returns them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from tasks.contract.params import StageFailed
from tasks.sft.core.scoring import logits_of, prepare_scoring

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from tasks.sft.core.hooks import Teacher
    from tasks.sft.core.scoring import Batch


def frozen(teacher: PreTrainedModel, student: PreTrainedModel) -> Teacher:
    """A model of the same vocabulary that never moves. It is copied when it is the student itself, as it is now.

    Raises StageFailed for another vocabulary: logits of different tokens cannot be compared.
    """
    sizes = [int(model.config.get_text_config().vocab_size) for model in (teacher, student)]
    if sizes[0] != sizes[1]:
        raise StageFailed(f"the teacher has a vocabulary of {sizes[0]} tokens, the model one of {sizes[1]}. Use models that share one.")
    fixed = copy.deepcopy(teacher) if teacher is student else teacher
    prepare_scoring(fixed.eval().requires_grad_(False))

    def score(batch: Batch) -> Tensor:
        import torch

        with torch.no_grad():
            return logits_of(fixed, batch)

    return score


def without_adapter(model: PreTrainedModel) -> Teacher:
    """The base under a PEFT model's adapter: one base in memory serves as both."""

    def score(batch: Batch) -> Tensor:
        import torch

        with torch.no_grad(), model.disable_adapter():
            return logits_of(model, batch)

    return score
