"""Engine `transformers`: any architecture that transformers runs, in this process, by the model's own forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contract import params as base
from tasks.contract.params import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tasks.players.local.generation import Place
    from tasks.players.local.transformers.engine import TransformersEngine


class Params(base.Params):
    """Nothing can be set."""


WAYS: frozenset[str] = frozenset()
"""Of its params those on which no answer depends."""


def check_checkpoint(config: Any, tensors: Sequence[str]) -> None:
    """Raise BadInput for a checkpoint, by its transformers config, that is no language model which writes from left to right. tensors:
    their names do not matter to this engine."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise BadInput(f"engine transformers: model_type {config.model_type} is no causal language model of transformers.")


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
) -> TransformersEngine:
    """An engine over a checkpoint folder, or over a model in memory, plain or with PEFT adapters, as it is at each step.

    adapters: name -> folder of an adapter of this base. device, dtype (None: the checkpoint's own): of a folder; a model has both.
    """
    from tasks.checkpoints import folders
    from tasks.players.local.transformers.engine import TransformersEngine

    model = checkpoint
    if isinstance(model, Path):
        model = folders.load_model(model, device, dtype)
    if adapters:
        from peft import PeftModel

        (first, folder), *others = adapters.items()
        model = PeftModel.from_pretrained(model, str(folder), adapter_name=first).eval()
        for name, folder in others:
            model.load_adapter(str(folder), adapter_name=name)
    return TransformersEngine(model, rows=rows, most=most)
