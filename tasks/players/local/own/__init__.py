"""Engine `own`: Llama, Mistral, Qwen2 and Qwen3 decoded in this process; memory follows tokens, shared prompts are computed once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tasks.players.local.own.engine import OwnEngine


def opened(
    checkpoint: Path | PreTrainedModel,
    adapters: Mapping[str, Path] | None = None,
    *,
    rows: int,
    most: int,
    device: str = "cpu",
    dtype: str | None = None,
    memory: int | None = None,
) -> OwnEngine:
    """An engine over a checkpoint folder, or over a model in memory, whose parameters it reads as they are at each step (those of its
    LoRA adapters too, under their names there).

    adapters: name -> folder of a LoRA adapter of this base. rows, most, memory: see `OwnEngine`. device, dtype (None: the checkpoint's
    own): of a folder; a model has both. BadInput for what the engine cannot run.
    """
    from tasks.players.local.own import weights
    from tasks.players.local.own.engine import OwnEngine

    if isinstance(checkpoint, Path):
        stack, worn = weights.of_folder(checkpoint, device, dtype), None
    else:
        stack, worn = weights.of_model(checkpoint)
    loaded = {name: weights.adapter_of_folder(folder, stack) for name, folder in (adapters or {}).items()}
    return OwnEngine(stack, {**(worn or {}), **loaded}, rows=rows, most=most, memory=memory)
