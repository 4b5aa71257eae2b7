"""Adapters (PEFT) on their way out of a training: kept as a folder of their own, and merged into an ordinary checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def has_adapter(model: PreTrainedModel) -> bool:
    """Whether a model is a PEFT model."""
    return hasattr(model, "get_base_model")


def active_adapter(model: PreTrainedModel) -> str:
    """Name of the adapter that a PEFT model computes with; "" for a plain model. ValueError for several at once."""
    if not has_adapter(model):
        return ""
    if len(names := list(model.active_adapters)) != 1:
        raise ValueError(f"one adapter plays at a time; active are {names}")
    return str(names[0])


def keep_and_merge(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Write a PEFT model's adapter to `folder` (adapter_config.json and safetensors; it names no path of this machine) and merge it;
    returns the plain model."""
    for config in model.peft_config.values():
        config.base_model_name_or_path = ""
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # a card without a word of its own
    merged: PreTrainedModel = model.merge_and_unload()
    return merged
