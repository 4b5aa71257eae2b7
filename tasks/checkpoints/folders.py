"""Checkpoint folders: ordinary transformers folders of safetensors, JSON and `chat_template.jinja` alone; no pickle, no remote code."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.chat.local import kept
from tasks.checkpoints import memory
from tasks.contract.params import StageFailed

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_bare_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint folder, whatever chat format the folder keeps."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    for how in ("is_local", "local_files_only"):  # how it was read is not part of it, but would be saved with it
        tokenizer.init_kwargs.pop(how, None)
    return tokenizer


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint folder, with the chat template that it was trained with and the chat format that it keeps."""
    tokenizer = load_bare_tokenizer(folder)
    if chat := kept.read(folder):
        if tokenizer.chat_template != chat.template:
            raise StageFailed(
                f"{folder}: {kept.FILE} was proven for another chat template than the tokenizer has. Write it anew: `cairn chat check "
                f"{folder} --write`."
            )
        kept.keep(tokenizer, chat)
    return tokenizer


def load(folder: Path, device: str = "cpu", dtype: str = "float32") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A checkpoint folder as (model, tokenizer); see `load_model`."""
    return load_model(folder, device, dtype), load_tokenizer(folder)


def load_model(folder: Path, device: str = "cpu", dtype: str | None = "float32") -> PreTrainedModel:
    """The model of a checkpoint folder in eval mode on `device`. dtype: a torch dtype's name, e.g. "bfloat16"; None: the folder's own.

    Only safetensors are read. Raises FileNotFoundError when the folder holds no model, StageFailed when memory does not hold it, and
    for weights that are not those of the model that its config.json names.
    """
    import torch

    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder}: no checkpoint here (config.json is missing)")
    wanted = getattr(torch, dtype) if dtype else "auto"
    advice = "Its weights alone do not fit: take a smaller checkpoint, or dtype: bfloat16 where the step has it."
    with memory.advised(f"{folder} is loaded to {device}", advice):
        model, wrong = _read(folder, dtype=wanted)
        if wrong:
            raise StageFailed(f"{folder}: {wrong}")
        return model.to(device).eval()


def misfit(folder: Path) -> str:
    """In what the weights of a folder are not those of the model that its config.json names, found without reading them; "" for a
    folder that loads whole."""
    return _read(folder, device_map="meta")[1]


def _read(folder: Path, **how: Any) -> tuple[PreTrainedModel, str]:
    """The model, and what is wrong with its weights: transformers fills what is missing, or has another shape, with random numbers,
    says so in a warning, and leaves out what the model has no place for."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # Cairn reports progress itself
    loud = logging.get_verbosity()
    logging.set_verbosity_error()  # its report of the same, as a table
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            str(folder),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **how,
        )
    finally:
        logging.set_verbosity(loud)
    stacks = {name[: at.start()] for name in model.state_dict() if (at := re.search(r"\.\d+\.", name))}
    unread = [
        name for name in found["unexpected_keys"] if name.endswith((".weight", ".bias")) and re.split(r"\.\d+\.", name)[0] in stacks
    ]
    parts = (
        ("not there", found["missing_keys"]),
        ("of another shape", [str(one if isinstance(one, str) else one[0]) for one in found["mismatched_keys"]]),
        ("of no layer that it says", unread),
    )
    told = [f"{len(names)} {fault} ({', '.join(sorted(names)[:3])})" for fault, names in parts if names]
    return model, f"the weights are not those of the model that config.json names: {'; '.join(told)}" if told else ""


def warm_up(folder: Path) -> None:
    """Import all that `load` needs for a checkpoint (4 s) and compute nothing: for a process that forks before it loads."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    load_tokenizer(folder)


def trainable(model: PreTrainedModel) -> list[torch.nn.Parameter]:
    """The parameters that a training moves, at least one; StageFailed when a method's `prepare` has left none."""
    if found := [parameter for parameter in model.parameters() if parameter.requires_grad]:
        return found
    raise StageFailed("nothing would train: after the method's `prepare` no parameter has requires_grad. Leave some of them free.")


def context_of(model: PreTrainedModel) -> int:
    """Positions of a checkpoint: the most tokens that it was made to read at once."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", 0) or sys.maxsize)
