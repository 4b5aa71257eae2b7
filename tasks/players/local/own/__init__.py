"""Engine `own`: Llama, Mistral, Qwen2 and Qwen3 decoded in this process; memory follows tokens, shared prompts are computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from tasks.contract import params as base

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tasks.players.local.generation import Place
    from tasks.players.local.own.engine import OwnEngine

GIB = 1 << 30


class Params(base.Params):
    """Of the engine alone."""

    memory: float | None = Field(None, gt=0, le=4096, description="GiB for keys and values; empty: as many as the tokens need")


WAYS = frozenset(("memory",))
"""Of its params those on which no answer depends."""


def check_checkpoint(config: Any, tensors: Sequence[str]) -> None:
    """Raise BadInput for a checkpoint that the engine cannot run, by its transformers config and the names of its tensors, as far as
    they are known."""
    from tasks.players.local.own.architecture import check

    check(config, tensors)


def opened(
    checkpoint: Path | PreTrainedModel,
    adapters: Mapping[str, Path] | None = None,
    *,
    rows: int,
    most: int,
    device: str = "cpu",
    dtype: str | None = None,
    params: Params | None = None,
    place: Place | None = None,
) -> OwnEngine:
    """An engine over a checkpoint folder, or over a model in memory, whose parameters it reads as they are at each step (those of its
    LoRA adapters too, under their names there).

    adapters: name -> folder of a LoRA adapter of this base. rows, most: see `OwnEngine`. device, dtype (None: the checkpoint's
    own): of a folder; a model has both. place: not needed. BadInput for what the engine cannot run.
    """
    from tasks.players.local.own import weights
    from tasks.players.local.own.engine import OwnEngine

    if isinstance(checkpoint, Path):
        stack, worn = weights.of_folder(checkpoint, device, dtype), None
    else:
        stack, worn = weights.of_model(checkpoint)
    loaded = {name: weights.adapter_of_folder(folder, stack) for name, folder in (adapters or {}).items()}
    memory = int(params.memory * GIB) if params and params.memory else None
    return OwnEngine(stack, {**(worn or {}), **loaded}, rows=rows, most=most, memory=memory)
