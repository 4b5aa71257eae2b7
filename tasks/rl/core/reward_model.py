"""A learned reward: a checkpoint with a scoring head that reads text (of the step `reward`, in `Inputs.others`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.checkpoints import folders
from tasks.contract.params import StageFailed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ROWS = 32
"""Texts of one forward pass."""


class RewardModel:
    """Scores texts, m numbers each: a checkpoint for sequence classification with m labels, frozen (SALMON: 1; DPA: one an attribute).

    The score is read at the end token, which is added to every text, in training and in use: TRL's trainer appends one, and a text
    without it would be read at another token.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer

    @classmethod
    def load(cls, folder: Path, device: str) -> RewardModel:
        """From a checkpoint folder. StageFailed when its head is one for producing tokens."""
        from transformers import AutoConfig, AutoModelForSequenceClassification

        where = str(folder)
        made_for = AutoConfig.from_pretrained(where, local_files_only=True, trust_remote_code=False).architectures or []
        if not any(name.endswith("ForSequenceClassification") for name in made_for):
            raise StageFailed(
                f"rl: the input `reward` is a {', '.join(made_for) or 'model of an unknown kind'}, which scores nothing. Expected: a "
                "checkpoint for sequence classification."
            )
        model = AutoModelForSequenceClassification.from_pretrained(
            where, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
        return cls(model.to(device), folders.load_tokenizer(folder))

    def score(self, texts: Sequence[str]) -> list[list[float]]:
        """m numbers for each text, in order."""
        import torch

        end, pad = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        rows = [[*self.tokenizer(text, add_special_tokens=False)["input_ids"], end] for text in texts]
        scores: list[list[float]] = []
        for start in range(0, len(rows), ROWS):
            part = rows[start : start + ROWS]
            width = max(map(len, part))
            ids = torch.tensor([row + [pad] * (width - len(row)) for row in part], device=self.model.device)
            ends = torch.tensor([len(row) - 1 for row in part], device=self.model.device)
            with torch.no_grad():
                hidden = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
                scores += self.model.score(hidden[torch.arange(len(part)), ends]).float().tolist()
        return scores
