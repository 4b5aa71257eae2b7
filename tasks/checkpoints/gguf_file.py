"""A GGUF file as a transformers checkpoint: read and dequantised by transformers' own loader, with the package `gguf`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.checkpoints.reading import readable

if TYPE_CHECKING:
    from gguf import GGUFReader
    from transformers import PreTrainedModel


def is_gguf(source: Path) -> bool:
    """Whether a source is a GGUF file, by its first bytes."""
    if not source.is_file():
        return False
    with source.open("rb") as file:
        return file.read(4) == b"GGUF"


def config_and_tokenizer(source: Path) -> tuple[Any, Any]:
    """The transformers config and tokenizer in a GGUF file. BadInput for a file that transformers cannot read."""
    from transformers import AutoConfig, AutoTokenizer

    with readable("transformers cannot read this GGUF file (was it fetched whole?)"):
        return (_of(AutoConfig, source), _of(AutoTokenizer, source))


def reader(source: Path) -> GGUFReader:
    """The keys and the tensors of a GGUF file. BadInput for one that is cut off or damaged."""
    from gguf import GGUFReader

    with readable("this GGUF file cannot be read (was it fetched whole?)"):
        return GGUFReader(str(source))


def about(source: Path) -> Mapping[str, str]:
    """What a GGUF file says of itself, as text: license, name, organization and such (the keys of `general.`)."""
    fields = reader(source).fields
    return {name.removeprefix("general."): str(field.contents()) for name, field in fields.items() if name.startswith("general.")}


def load(source: Path, dtype: str) -> PreTrainedModel:
    """The model of a GGUF file, dequantised, in a torch dtype (its name). transformers takes it for a quantised one and refuses to save
    it, so its weights are copied into a fresh model."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    wanted = getattr(torch, dtype)
    found = _of(AutoModelForCausalLM, source, dtype=wanted)
    config = _of(type(found.config), source)
    config.dtype = wanted
    model = AutoModelForCausalLM.from_config(config, dtype=wanted, trust_remote_code=False)
    model.load_state_dict(found.state_dict())
    model.generation_config = found.generation_config
    return model.eval()


def _of(kind: Any, source: Path, **more: Any) -> Any:
    return kind.from_pretrained(str(source.parent), gguf_file=source.name, local_files_only=True, **more)
