"""Adapters (PEFT): a checkpoint folder may hold one instead of weights, with the name of the base that it changes.

Such a folder has `adapter_model.safetensors`, `adapter_config.json` and BASE; configuration, tokenizer and chat format lie beside
them as in any checkpoint folder. It is played and trained further on its base, of which one is in memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.checkpoints import folders
from tasks.contract.params import StageFailed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONFIG, WEIGHTS, BASE = "adapter_config.json", "adapter_model.safetensors", "base.json"
ADAPTER = "default"
"""Name of the one adapter that a loaded model wears, PEFT's own."""


@dataclass(frozen=True)
class Base:
    """Which checkpoint an adapter changes.

    weights: digest of its weight files (`weights_of`). artifact: identity of the artifact that it lies in, "" where it is in none;
    folder: its place there. adapter: what made the adapter what it is (`adapter_params`), empty where a method put it in by itself.
    """

    weights: str
    artifact: str = ""
    folder: str = ""
    adapter: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        place = f"{self.folder} of artifact {self.artifact}, " if self.artifact else ""
        return f"{place}weights {self.weights}"


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


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and not a whole checkpoint."""
    return (folder / CONFIG).is_file()


def weights_of(folder: Path) -> str:
    """What a whole checkpoint's weights are told by: a digest of its safetensors, 32 digits; an adapter beside them does not count."""
    found = hashlib.md5(usedforsecurity=False)
    for file in sorted(file for file in folder.glob("*.safetensors") if file.name != WEIGHTS):
        with file.open("rb") as stream:
            found.update(hashlib.file_digest(stream, "md5").digest())
    return found.hexdigest()


def base_of(folder: Path) -> Base | None:
    """What an adapter's folder says of its base; None where it says nothing (an adapter from elsewhere)."""
    file = folder / BASE
    return Base(**json.loads(file.read_text())) if file.is_file() else None


def find_base(folder: Path, artifacts: Mapping[str, Path]) -> Path:
    """The folder of the checkpoint that an adapter changes. artifacts: identity -> folder of those at hand.

    StageFailed when its base is not among them.
    """
    base = base_of(folder)
    if base is None or base.artifact not in artifacts:
        raise StageFailed(
            f"{folder} is an adapter, and its base is not at hand: {base or f'it has no {BASE}'}. Bring that artifact back "
            "(`dvc pull`), or train with adapter.save: full."
        )
    return artifacts[base.artifact] / base.folder


def named(folder: Path, artifacts: Mapping[str, Path], adapter: Mapping[str, Any]) -> Base:
    """A whole checkpoint as an adapter's base. artifacts: as in `find_base`. adapter: as in `Base`."""
    for identity, place in artifacts.items():
        if folder.is_relative_to(place):
            return Base(weights_of(folder), identity, folder.relative_to(place).as_posix(), adapter)
    return Base(weights_of(folder), adapter=adapter)


def load(
    folder: Path, artifacts: Mapping[str, Path], device: str = "cpu", dtype: str = "float32"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """`folders.load` for a folder that may hold an adapter: then the base wears it, and nothing is merged."""
    if not is_adapter(folder):
        return folders.load(folder, device, dtype)
    model, tokenizer = load_base(folder, artifacts, device, dtype)
    return put_on(model, folder).eval(), tokenizer


def load_base(
    folder: Path, artifacts: Mapping[str, Path], device: str = "cpu", dtype: str = "float32"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The base of an adapter's folder, with the tokenizer that lies beside the adapter."""
    model, _ = folders.load(find_base(folder, artifacts), device, dtype)
    tokenizer = folders.load_tokenizer(folder)
    grow(model, tokenizer)
    return model, tokenizer


def load_whole(folder: Path, artifacts: Mapping[str, Path], device: str = "cpu") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A plain model, free to train: an adapter is merged into its base, in memory."""
    model, tokenizer = load(folder, artifacts, device)
    return (model.merge_and_unload() if has_adapter(model) else model).requires_grad_(True), tokenizer


def put_on(model: PreTrainedModel, folder: Path, trains: bool = False, dropout: float = 0.0) -> PreTrainedModel:
    """The base wearing a folder's adapter. trains: whether the adapter's weights do."""
    from peft import PeftConfig, PeftModel

    config = PeftConfig.from_pretrained(str(folder))
    config.lora_dropout = dropout
    found: PreTrainedModel = PeftModel.from_pretrained(
        model, str(folder), adapter_name=ADAPTER, is_trainable=trains, config=config, autocast_adapter_dtype=trains
    )
    return found


def lend(player: Any, model: PreTrainedModel, weights: str) -> None:
    """Let whoever plays a role from a checkpoint in this process answer with the base under `model`'s adapter, if that is the same one
    (`LocalClient.play_on`). weights: of that base, "" where `model` wears no adapter."""
    if hasattr(player, "play_on"):
        player.play_on(model, weights)


def grow(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Give a model a row for every token that was added to its tokenizer; returns whether there were any."""
    if len(tokenizer) <= model.get_input_embeddings().num_embeddings:
        return False
    model.resize_token_embeddings(len(tokenizer))
    return True
