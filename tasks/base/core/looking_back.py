"""Initial weights with which a tiny model looks back from its first step on (see `tasks.base.tiny_qwen3`, departures 2 and 3)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

SHARED = 0.2
"""Length of the direction that all embedding rows share; ours: an embedding row itself has length 0.02 * sqrt(128) =
0.23."""
GAIN = 0.2
"""v_proj is orthogonal times this, o_proj its transpose; ours: a head then writes about as much as an embedding holds."""
LOOK = 0.3
"""Weight of the shared direction in the previous-token heads; ours, several times the usual 0.02."""
SHARPNESS = 1.7
"""Scale of q_norm and k_norm in the first layer; ours: normalised queries and keys alone cannot single out one position."""
FAST = 3
"""Rotary frequencies the previous-token heads use, the fastest ones: slow ones cannot tell neighbours apart."""


def look_back(model: PreTrainedModel) -> None:
    """Overwrite the attention's initial weights in place (departures 2 and 3); a layer's projections are (width, width)."""
    import torch

    layers = [layer.self_attn for layer in model.model.layers]
    width, size = model.config.hidden_size, model.config.head_dim
    shared = torch.nn.functional.normalize(torch.randn(width), dim=0)
    model.model.embed_tokens.weight.add_(SHARED * shared)
    rotation = torch.nn.init.orthogonal_(torch.empty(width, width))
    for attention in layers:
        attention.v_proj.weight.copy_(GAIN * torch.nn.init.orthogonal_(torch.empty(width, width)))
        attention.o_proj.weight.copy_(attention.v_proj.weight.T)
    first = layers[0]
    first.o_proj.weight.copy_(rotation @ first.v_proj.weight.T)
    for attention in layers[1:]:
        attention.k_proj.weight.copy_(attention.q_proj.weight @ rotation.T)
    frequencies = model.config.rope_parameters["rope_theta"] ** -(torch.arange(size // 2) / (size // 2))
    for head in range(model.config.num_attention_heads // 2):
        rows = slice(head * size, (head + 1) * size)
        query, key = _previous_token(frequencies)
        first.q_proj.weight[rows] += LOOK * torch.outer(query, shared)
        first.k_proj.weight[rows] += LOOK * torch.outer(key, shared)
    first.q_norm.weight.mul_(SHARPNESS)
    first.k_norm.weight.mul_(SHARPNESS)


def _previous_token(frequencies: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A query and a key (2 x frequencies values each) whose rotary product is largest when the key is one position earlier.

    With R the rotation by one position, the product at distance d (key minus query) is key' R^(d+1) key: largest at d = -1.
    """
    import torch

    phases = torch.rand(len(frequencies)) * math.tau
    used = (torch.arange(len(frequencies)) < FAST).float()
    key = torch.cat([used * phases.cos(), used * phases.sin()])
    query = torch.cat([used * (phases - frequencies).cos(), used * (phases - frequencies).sin()])
    return query, key
