"""What the engine must know of a checkpoint's architecture, read from its config; what it cannot run is refused by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.contract.params import BadInput

if TYPE_CHECKING:
    import torch

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Values of `model_type` that the engine runs."""
ROPES = ("default", "linear", "llama3", "yarn")
"""Kinds of rotary positions whose frequencies do not change with the length of a conversation."""


KNOWN = re.compile(
    r"model\.embed_tokens\.weight|model\.norm\.weight|lm_head\.(weight|bias)|model\.layers\.\d+\.("
    r"(input|post_attention)_layernorm\.weight|self_attn\.([qkvo]_proj\.(weight|bias)|[qk]_norm\.weight)|"
    r"mlp\.(gate|up|down)_proj\.(weight|bias))"
)
"""Names of the parameters that the engine has a use for."""


@dataclass(frozen=True)
class Architecture:
    """heads: of queries; each of the kv_heads serves heads / kv_heads of them. size: numbers of one head. eps: of the norms.
    frequencies: (size / 2,) of the rotary positions, float32; rotary_scale multiplies their sine and cosine. context: positions."""

    layers: int
    heads: int
    kv_heads: int
    size: int
    eps: float
    activation: Callable[[torch.Tensor], torch.Tensor]
    frequencies: torch.Tensor
    rotary_scale: float
    context: int

    @property
    def group(self) -> int:
        """Query heads of one key/value head."""
        return self.heads // self.kv_heads


def read(config: Any) -> Architecture:
    """The architecture in a transformers config. BadInput names what the engine cannot run, and what it can."""
    import sys

    from transformers.activations import ACT2FN
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    if wrong := unsupported(config):
        raise BadInput(
            f"engine own: it cannot run this checkpoint: {wrong}. It runs model_type {', '.join(FAMILIES)} without sliding windows or "
            f"quantization, with rope_type {', '.join(ROPES)}."
        )
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters
    if rope["rope_type"] == "default":
        import torch

        frequencies, scale = 1.0 / (rope["rope_theta"] ** (torch.arange(0, size, 2, dtype=torch.float) / size)), 1.0
    else:
        frequencies, scale = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config)
    return Architecture(
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads or config.num_attention_heads,
        size=size,
        eps=config.rms_norm_eps,
        activation=ACT2FN[config.hidden_act],
        frequencies=frequencies,
        rotary_scale=float(scale),
        context=int(getattr(config, "max_position_embeddings", 0) or sys.maxsize),
    )


def check(config: Any, tensors: Sequence[str]) -> None:
    """Raise BadInput for a checkpoint, by its transformers config and the names of its tensors, that the engine cannot run."""
    read(config)
    check_names(tensors)


def check_names(tensors: Iterable[str]) -> None:
    """Raise BadInput for a parameter that the engine has no use for."""
    if unknown := sorted(name for name in tensors if not KNOWN.fullmatch(name)):
        raise BadInput(f"engine own: the model has parameters that it has no use for: {', '.join(unknown[:5])} ({len(unknown)} in all)")


def unsupported(config: Any) -> str:
    """Why the engine cannot run a checkpoint with this config; "" when it can."""
    if config.model_type not in FAMILIES:
        return f"its model_type is {config.model_type}"
    rope = getattr(config, "rope_parameters", None) or {}
    window = getattr(config, "sliding_window", None)
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()) or (config.model_type == "mistral" and window):
        return f"its attention has a sliding window of {window} tokens (sliding_window)"
    if rope.get("rope_type") not in ROPES:
        return f"its rope_type is {rope.get('rope_type')}"
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        return f"it rotates a share of each head alone (partial_rotary_factor {rope['partial_rotary_factor']})"
    if getattr(config, "quantization_config", None):
        return "its weights are quantized (quantization_config)"
    return ""
