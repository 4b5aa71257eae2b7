"""Random checkpoints of a Llama-like model for the merge room's oracle and benchmark, written tensor by tensor with numpy alone.

And the shape of a real one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.contract.context import seed_of
from tasks.merge.core.headers import FLOATS, Array, narrow

SPREAD = 0.02
"""Standard deviation of the base's weights: transformers' initializer_range for this architecture."""
STEP = 0.001
"""Standard deviation of an expert's changes: 5 % of the base's norm, well below what the merge room refuses."""
HEAD = 64
"""Width of an attention head, as in models of this size."""

SMOLLM2 = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
    "tie_word_embeddings": True,
}
"""https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct/blob/main/config.json, what gives the model its shape."""

Draw = Callable[[str, tuple[int, ...]], Array]
"""draw(name, shape): a tensor's values, float32."""


@dataclass(frozen=True)
class Model:
    """A Llama-like decoder; the embedding is also the output layer if `tied`."""

    width: int
    inner: int
    layers: int
    vocab: int
    tied: bool = True

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every tensor."""
        wide = (self.width, self.width)
        found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab, self.width)}
        for layer in range(self.layers):
            parts = {f"self_attn.{part}_proj": wide for part in "qkvo"}
            parts |= {"mlp.gate_proj": (self.inner, self.width), "mlp.up_proj": (self.inner, self.width)}
            parts |= {"mlp.down_proj": (self.width, self.inner)}
            norms = {"input_layernorm": (self.width,), "post_attention_layernorm": (self.width,)}
            found |= {f"model.layers.{layer}.{part}.weight": shape for part, shape in {**parts, **norms}.items()}
        found["model.norm.weight"] = (self.width,)
        if not self.tied:
            found["lm_head.weight"] = (self.vocab, self.width)
        return found

    @property
    def parameters(self) -> int:
        """Number of entries."""
        return sum(math.prod(shape) for shape in self.shapes().values())

    @property
    def largest(self) -> int:
        """Entries of the largest tensor."""
        return max(math.prod(shape) for shape in self.shapes().values())

    def config(self, dtype: str) -> dict[str, object]:
        """config.json."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.width,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "num_attention_heads": max(self.width // HEAD, 1),
            "num_key_value_heads": max(self.width // HEAD, 1),
            "vocab_size": self.vocab,
            "tie_word_embeddings": self.tied,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-6,
            "max_position_embeddings": 64,
            "torch_dtype": {"F32": "float32", "BF16": "bfloat16"}[dtype],
        }


def of_size(parameters: int) -> Model:
    """A plausible model of about so many parameters: 32,000 tokens, four times as wide inside, some twenty layers."""
    vocab = 32_000
    width = max(HEAD, round(math.sqrt(parameters / 400) / HEAD) * HEAD)  # 16 width^2 a layer; 400 / 16: about 25 layers
    each = 16 * width**2 + 2 * width
    return Model(width, 4 * width, max(1, round((parameters - (vocab + 1) * width) / each)), vocab)


def save(folder: Path, model: Model, draw: Draw, dtype: str = "F32", shards: int = 1) -> None:
    """A checkpoint folder; one tensor is in memory at a time. dtype: as safetensors calls it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(model.config(dtype), indent=1) + "\n", encoding="utf-8")
    parts = list(_parts(model, shards))
    names = (
        ["model.safetensors"]
        if len(parts) == 1
        else [f"model-{n:05d}-of-{len(parts):05d}.safetensors" for n in range(1, len(parts) + 1)]
    )
    for file, shapes in zip(names, parts, strict=True):
        _write(folder / file, shapes, draw, dtype)
    if len(parts) > 1:
        weight_map = {name: file for file, shapes in zip(names, parts, strict=True) for name in shapes}
        index = {"metadata": {"total_size": model.parameters * _bytes(dtype)}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index) + "\n", encoding="utf-8")


def family(folder: Path, model: Model, experts: int, dtype: str = "F32", shards: int = 1, step: float = STEP) -> None:
    """folder/base and folder/expert_0 ... : normal weights, and experts that moved from them by normal steps."""
    save(folder / "base", model, _start, dtype, shards)
    for number in range(experts):

        def moved(name: str, shape: tuple[int, ...], number: int = number) -> Array:
            values = _start(name, shape)
            values += np.float32(step) * _normal(shape, number, name)
            return values

        save(folder / f"expert_{number}", model, moved, dtype, shards)


def _start(name: str, shape: tuple[int, ...]) -> Array:
    return np.float32(SPREAD) * _normal(shape, "base", name)


def _normal(shape: tuple[int, ...], *names: object) -> Array:
    return np.random.default_rng(seed_of(*names)).standard_normal(shape, dtype=np.float32)


def _bytes(dtype: str) -> int:
    return np.dtype(FLOATS[dtype]).itemsize


def _parts(model: Model, shards: int) -> Iterator[dict[str, tuple[int, ...]]]:
    """The tensors in so many files of about equal size, or fewer where a tensor is larger than its share."""
    share = model.parameters / shards
    part: dict[str, tuple[int, ...]] = {}
    for name, shape in model.shapes().items():
        if part and sum(map(math.prod, part.values())) + math.prod(shape) / 2 > share:
            yield part
            part = {}
        part[name] = shape
    yield part


def _write(file: Path, shapes: dict[str, tuple[int, ...]], draw: Draw, dtype: str) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * _bytes(dtype)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            stream.write(np.ascontiguousarray(narrow(draw(name, shape), dtype)).data)
