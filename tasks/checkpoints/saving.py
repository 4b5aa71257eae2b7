"""Checkpoint folders and adapters written: whoever only plays checkpoints needs none of this."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.chat.local import kept
from tasks.checkpoints.adapters import BASE, CONFIG, WEIGHTS, Base, active_adapter, load_whole
from tasks.contract.params import StageFailed

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def all_finite(model: torch.nn.Module) -> bool:
    """Whether every weight is a number, and none infinite."""
    import torch

    return all(bool(torch.isfinite(weights).all()) for weights in model.parameters())


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a checkpoint folder: safetensors, JSON and the chat template. The bytes depend on the weights alone.

    StageFailed for weights that are no numbers (a training that diverged), and for a model that wears an adapter (`keep_adapter`).
    """
    from transformers.utils import logging

    if hasattr(model, "get_base_model"):
        raise StageFailed("the trained model still wears an adapter. It is kept by saving.keep_adapter, or merged first.")
    if not all_finite(model):
        raise StageFailed("the training diverged: weights are NaN or infinite, so nothing was kept. Lower the learning rate.")
    logging.disable_progress_bar()  # Cairn reports progress itself
    model.config._name_or_path = ""
    model.save_pretrained(str(folder))
    save_tokenizer(tokenizer, folder)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a checkpoint's tokenizer, with its chat template and the chat format that it keeps."""
    tokenizer.name_or_path = ""
    tokenizer.save_pretrained(str(folder))
    kept.write(kept.chat_of(tokenizer), folder)


def keep_adapter(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, base: Base) -> None:
    """Write the adapter that a PEFT model computes with as a checkpoint folder; the bytes depend on its weights alone, and no path of
    this machine is in them. StageFailed for weights that are no numbers."""
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import save_file

    if not all_finite(model):
        raise StageFailed("the training diverged: weights are NaN or infinite, so nothing was kept. Lower the learning rate.")
    folder.mkdir(parents=True, exist_ok=True)
    name = active_adapter(model)
    weights = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    save_file(
        {key: weights[key].detach().cpu().contiguous().clone() for key in sorted(weights)}, str(folder / WEIGHTS), {"format": "pt"}
    )
    config = copy.copy(model.peft_config[name])
    config.base_model_name_or_path, config.inference_mode = "", True
    about = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    (folder / CONFIG).write_text(json.dumps(about, indent=2, sort_keys=True) + "\n")
    (folder / BASE).write_text(json.dumps(asdict(base), indent=2, sort_keys=True) + "\n")
    plain = model.get_base_model().config
    plain._name_or_path = ""
    plain.save_pretrained(str(folder))
    save_tokenizer(tokenizer, folder)


def merged(folder: Path, artifacts: Mapping[str, Path], out: Path) -> Path:
    """An adapter's folder as a whole checkpoint in `out`; for what reads whole ones alone."""
    save(*load_whole(folder, artifacts), out)
    return out
