"""The checkpoint that a road begins with, as far as a forecast needs it: its config.json, and its tokenizer where there is one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.forecast.shape import Shape, read
from tasks.checkpoints import gguf_file
from tasks.contract.params import BadInput
from tasks.engine import methods, sources
from tasks.engine.artifact import Store
from tasks.engine.settings import Settings

CONFIG = "config.json"


@dataclass(frozen=True)
class Checkpoint:
    """shape: of its decoder. folder: where its tokenizer lies, None before there is one. where: the place, for people."""

    shape: Shape
    folder: Path | None
    where: str


def find(settings: Settings, opened: Callable[[str], Path | None], store: Store) -> Checkpoint:
    """The base of the road: as its step has left it, else what its method's params name, else what the method says that it builds.

    opened: step -> the folder that it has left, None when it has not. BadInput when nothing says what the checkpoint is like.
    """
    stage = settings.road.entering("base")[0]
    if there := opened(stage):
        return at(there / "model")
    if source := sources.of_stage(settings, stage):
        if not source.text:
            raise BadInput(f"{source.param} is missing: of which model? `--model CHECKPOINT` says it here and for `cairn use`.")
        return of_source(sources.resolve(source, settings.project, store))
    params, method = settings.params(stage), settings.method(stage)
    module = methods.load(settings.room(stage), method)
    if hasattr(module, "config"):
        return Checkpoint(read(module.config(params), f"{stage}.{method}"), None, f"what {stage}.{method} builds")
    raise BadInput(f"nothing says what {stage}.method = {method} makes. Let it make the checkpoint first: `cairn run --to {stage}`.")


def of_source(place: Path) -> Checkpoint:
    """A checkpoint from outside: a folder or a GGUF file. BadInput for anything else."""
    return _of_gguf(place) if gguf_file.is_gguf(place) else at(place)


def _of_gguf(file: Path) -> Checkpoint:
    """By the head of a GGUF file, whose keys its `general.architecture` begins."""
    try:
        reader = gguf_file.reader(file)
    except BadInput as error:
        raise BadInput(f"{file}: {error}") from None
    fields, tensors = reader.fields, {tensor.name for tensor in reader.tensors}
    if missing := [key for key in ("general.architecture", "tokenizer.ggml.tokens") if key not in fields]:
        raise BadInput(f"{file} holds no {' and no '.join(missing)}: it is no model with its tokenizer.")
    kind = str(fields["general.architecture"].contents())

    def number(key: str) -> int | None:
        found = fields.get(f"{kind}.{key}")
        return int(found.contents()) if found else None

    config = {
        "model_type": kind,
        "hidden_size": number("embedding_length"),
        "num_hidden_layers": number("block_count"),
        "num_attention_heads": number("attention.head_count"),
        "num_key_value_heads": number("attention.head_count_kv"),
        "head_dim": number("attention.key_length"),
        "intermediate_size": number("feed_forward_length"),
        "vocab_size": len(fields["tokenizer.ggml.tokens"].data),
        "max_position_embeddings": number("context_length"),
        "tie_word_embeddings": "output.weight" not in tensors,
        "num_experts": number("expert_count"),
        "dtype": "float32",
    }
    return Checkpoint(read(config, str(file)), None, str(file))


def at(folder: Path) -> Checkpoint:
    """A checkpoint's folder. BadInput for one without a config.json that can be read."""
    if not (folder / CONFIG).is_file():
        raise BadInput(f"{folder}: no checkpoint, since {CONFIG} is missing. Allowed: a folder as transformers saves it.")
    return Checkpoint(read(config_of(folder), str(folder / CONFIG)), folder, str(folder))


def config_of(folder: Path) -> Mapping[str, Any]:
    """What a checkpoint's config.json says."""
    try:
        said = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder / CONFIG} cannot be read: {error}") from None
    if not isinstance(said, Mapping):
        raise BadInput(f"{folder / CONFIG}: expected a mapping")
    return said
