"""The shape of a decoder, read from its config.json: how many numbers its parts have. The Llama family: grouped heads, a gated MLP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.contract.params import BadInput

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Of one number."""
OPTIONAL = ("num_key_value_heads", "head_dim", "max_position_embeddings")
NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")


@dataclass(frozen=True)
class Shape:
    """width: of the residual stream. size: numbers of one head. inner: width of the MLP. normed_heads: queries and keys are normalised
    (Qwen3). tied: the output layer is the embedding. context: positions, 0 when the config does not say. stored: bytes a number of
    the checkpoint's files."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    size: int
    inner: int
    vocabulary: int
    tied: bool
    normed_heads: bool
    biased: bool
    context: int
    stored: int

    @property
    def queries(self) -> int:
        """Numbers of a token's queries in one layer."""
        return self.heads * self.size

    @property
    def keys(self) -> int:
        """Numbers of a token's keys in one layer, and of its values."""
        return self.kv_heads * self.size

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Linear maps of one layer: name -> (in, out)."""
        return {
            "q_proj": (self.width, self.queries),
            "k_proj": (self.width, self.keys),
            "v_proj": (self.width, self.keys),
            "o_proj": (self.queries, self.width),
            "gate_proj": (self.width, self.inner),
            "up_proj": (self.width, self.inner),
            "down_proj": (self.inner, self.width),
        }

    @property
    def matrices(self) -> int:
        """Numbers of all layers' linear maps."""
        return self.layers * sum(one * other for one, other in self.linears.values())

    @property
    def table(self) -> int:
        """Numbers of the embedding, and of the output layer."""
        return self.vocabulary * self.width

    @property
    def parameters(self) -> int:
        """All of them."""
        vectors = 2 * self.width + (2 * self.size if self.normed_heads else 0) + (self.queries + 2 * self.keys if self.biased else 0)
        return self.matrices + self.layers * vectors + self.width + self.table * (1 if self.tied else 2)


def read(config: Mapping[str, Any], where: str) -> Shape:
    """The shape that a config.json describes. BadInput for one without the numbers that a forecast needs. where: its place, for the
    message."""
    text = config.get("text_config")
    about = {**config, **(text if isinstance(text, Mapping) else {})}
    needed = (*NEEDED, *(name for name in OPTIONAL if about.get(name)))
    if missing := [name for name in needed if not isinstance(about.get(name), int) or about[name] < 1]:
        raise BadInput(
            f"{where} says nothing of {', '.join(missing)} that can be: a forecast knows decoders of the Llama family alone."
        )
    if about.get("num_experts") or about.get("num_local_experts"):
        raise BadInput(f"{where} describes a mixture of experts, of which a forecast knows nothing.")
    kind, heads = str(about.get("model_type", "")), about["num_attention_heads"]
    return Shape(
        layers=about["num_hidden_layers"],
        width=about["hidden_size"],
        heads=heads,
        kv_heads=about.get("num_key_value_heads") or heads,
        size=about.get("head_dim") or about["hidden_size"] // heads,
        inner=about["intermediate_size"],
        vocabulary=about["vocab_size"],
        tied=bool(about.get("tie_word_embeddings", False)),
        normed_heads=kind == "qwen3",
        biased=kind == "qwen2" or bool(about.get("attention_bias")),
        context=int(about.get("max_position_embeddings") or 0),
        stored=BYTES.get(str(about.get("dtype") or about.get("torch_dtype") or "float32").removeprefix("torch."), 4),
    )
