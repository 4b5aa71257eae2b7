"""Small checkpoint folders for the tests of the merge room."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

CONFIG = {"architectures": ["Qwen3ForCausalLM"], "vocab_size": 8, "hidden_size": 4, "tie_word_embeddings": True}
TOKENIZER = {"model": {"vocab": {"a": 0, "b": 1}}, "padding": None}


def save(folder: Path, tensors: Mapping[str, Any], **config: Any) -> Path:
    """A checkpoint folder with these tensors; `config` replaces entries of CONFIG."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


def weights(seed: int, scale: float = 1.0) -> dict[str, Any]:
    """Random tensors of a model with one matrix, an embedding, a norm of 64 entries and a scalar."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (8, 4),
        "model.layers.0.mlp.weight": (300, 257),
        "model.norm.weight": (64,),
        "scale": (),
    }
    return {name: np.asarray(rng.normal(size=shape) * scale, dtype=np.float32) for name, shape in shapes.items()}


def family(folder: Path, experts: int = 2, step: float = 0.1) -> tuple[Path, dict[str, Path]]:
    """A base and experts that moved a little from it."""
    start = weights(0)
    base = save(folder / "base", start)
    paths = {}
    for number in range(experts):
        moved = {name: start[name] + change for name, change in weights(number + 1, step).items()}
        paths[f"expert_{number}"] = save(folder / f"expert_{number}", moved)
    return base, paths
