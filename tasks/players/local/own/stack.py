"""The forward pass of a Llama-like decoder over plain tensors, in the order of operations of transformers' own.

Rotary positions: https://arxiv.org/abs/2104.09864; grouped heads: https://arxiv.org/abs/2305.13245. b: rows, n: new tokens, w: width,
h: query heads, k: key/value heads, d: size of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tasks.players.local.own.architecture import Architecture

Adapter = Mapping[str, "tuple[Tensor, Tensor, float, Tensor | None]"]
"""Name of a linear map -> (A (r, in), B (out, r), scale, gain): scale * x A^T B^T is added to what the base weights give; of DoRA the
sum, without the bias, is multiplied by gain (out,)."""
Worn = Sequence[tuple[Adapter, "Tensor | None"]]
"""Adapters of one pass, each with the rows (indices) that wear it; None: all rows."""
Attend = Callable[[int, "Tensor", "Tensor", "Tensor"], "Tensor"]
"""(layer, queries (b, h, n, d), keys (b, k, n, d), values) -> (b, h, n, d): keeps keys and values, and attends to all that is kept."""


@dataclass(frozen=True)
class Stack:
    """weights: by their names in transformers' Llama, Qwen2, Qwen3 and Mistral, on one device; nothing is copied. It computes in the
    embedding's dtype; what trains beside frozen weights may be wider and is narrowed when it is used. only: the adapter without which
    it cannot play, since modules that were trained whole with it are among the weights; "" for none."""

    architecture: Architecture
    weights: Mapping[str, Tensor]
    only: str = ""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.weights["model.embed_tokens.weight"].device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and so of keys and values."""
        return self.weights["model.embed_tokens.weight"].dtype

    def hidden(self, ids: Tensor, places: Tensor, attend: Attend, worn: Worn = ()) -> Tensor:
        """Last hidden states (b, n, w) of ids (b, n) at positions `places` (b, n)."""
        import torch

        x = torch.nn.functional.embedding(ids, self.weights["model.embed_tokens.weight"])
        angles = places[..., None].float() * self.architecture.frequencies.to(places.device)
        angles = torch.cat((angles, angles), dim=-1)
        scale = self.architecture.rotary_scale
        turn = ((angles.cos() * scale).to(x.dtype)[:, None], (angles.sin() * scale).to(x.dtype)[:, None])
        for layer in range(self.architecture.layers):
            at = f"model.layers.{layer}."
            x = x + self._attention(layer, self._norm(x, at + "input_layernorm"), turn, attend, worn)
            x = x + self._mlp(at + "mlp.", self._norm(x, at + "post_attention_layernorm"), worn)
        return self._norm(x, "model.norm")

    def logits(self, hidden: Tensor) -> Tensor:
        """(rows, vocabulary) of hidden states (rows, w)."""
        return self._linear(hidden, "lm_head")

    def _attention(self, layer: int, x: Tensor, turn: tuple[Tensor, Tensor], attend: Attend, worn: Worn) -> Tensor:
        at = f"model.layers.{layer}.self_attn."
        heads = (*x.shape[:-1], -1, self.architecture.size)
        q, k, v = (self._linear(x, at + name, worn).view(heads) for name in ("q_proj", "k_proj", "v_proj"))
        if at + "q_norm.weight" in self.weights:
            q, k = self._norm(q, at + "q_norm"), self._norm(k, at + "k_norm")
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        out = attend(layer, _rotated(q, turn), _rotated(k, turn), v)
        return self._linear(out.transpose(1, 2).reshape(*x.shape[:-1], -1), at + "o_proj", worn)

    def _mlp(self, at: str, x: Tensor, worn: Worn) -> Tensor:
        open_share = self.architecture.activation(self._linear(x, at + "gate_proj", worn))
        return self._linear(open_share * self._linear(x, at + "up_proj", worn), at + "down_proj", worn)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        import torch

        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.architecture.eps)
        return self.weights[name + ".weight"].to(x.dtype) * wide.to(x.dtype)

    def _linear(self, x: Tensor, name: str, worn: Worn = ()) -> Tensor:
        import torch

        linear = torch.nn.functional.linear
        bias = self.weights.get(name + ".bias")
        bias = None if bias is None else bias.to(x.dtype)
        out = linear(x, self.weights[name + ".weight"].to(x.dtype), bias)
        for adapter, rows in worn:
            if name in adapter:
                down, up, scale, gain = adapter[name]
                down, up, gain = down.to(x.dtype), up.to(x.dtype), None if gain is None else gain.to(x.dtype)
                if rows is None:
                    out = _gained(out + linear(linear(x, down), up) * scale, gain, bias)
                elif gain is None:
                    out.index_add_(0, rows, linear(linear(x[rows], down), up) * scale)
                else:
                    out[rows] = _gained(out[rows] + linear(linear(x[rows], down), up) * scale, gain, bias)
        return out


def _gained(out: Tensor, gain: Tensor | None, bias: Tensor | None) -> Tensor:
    if gain is None:
        return out
    return out * gain if bias is None else (out - bias) * gain + bias


def _rotated(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    import torch

    cos, sin = turn
    half = x.shape[-1] // 2
    return (x * cos) + (torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin)
