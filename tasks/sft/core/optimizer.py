"""The room's optimisers: AdamW for everything, or Muon for the matrices of the layers with AdamW for the rest.

Muon (K. Jordan and others, 2024, https://kellerjordan.github.io/posts/muon/) orthogonalises a matrix's momentum, so that all
its directions move alike. A tiny model learns rare things with it in about half the steps (`cairn run --set
sft.loop.optimizer=adamw` compares).

torch.optim.Muon iterates in bfloat16, which a CPU without instructions for it emulates at several times the cost of the
training itself; here the same iteration runs in float32, for all matrices of one shape at once.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tasks.checkpoints.folders import trainable
from tasks.training.optimizers import adamw

if TYPE_CHECKING:
    import torch
    from torch.optim import Optimizer
    from transformers import PreTrainedModel

    from tasks.sft.core.params import Loop

MOMENTUM = 0.95
"""With Nesterov's look-ahead; Muon's published value."""
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the Newton-Schulz iteration, as published: steepest at zero; singular values end between 0.7 and 1.2."""
STEPS = 5
"""Iterations; Muon's published value."""
RMS = 0.2
"""Root mean square of an update as a share of the rate, as AdamW's are (https://arxiv.org/abs/2502.16982, eq. 4)."""


def build(model: PreTrainedModel, params: Loop) -> Optimizer:
    """The optimiser of a run over the parameters that train, whichever a method left: matrices alone (adapters), vectors alone.
    Embeddings and the output layer are no matrices in Muon's sense. StageFailed when nothing trains.
    """
    trained = trainable(model)
    tables = {id(layer.weight) for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer is not None}
    matrices = [parameter for parameter in trained if parameter.ndim == 2 and id(parameter) not in tables]
    own = {id(parameter) for parameter in matrices} if params.optimizer == "muon" else set()
    rest = [parameter for parameter in trained if id(parameter) not in own]
    groups = [
        {"params": [parameter for parameter in rest if parameter.ndim >= 2], "weight_decay": params.weight_decay},
        {"params": [parameter for parameter in rest if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    parts: list[Optimizer] = []
    if used := [group for group in groups if group["params"]]:
        parts.append(adamw(used, params.optimizer, lr=params.learning_rate, betas=(0.9, params.beta2)))
    if own:
        parts.append(_muon(matrices, params))
    return parts[0] if len(parts) == 1 else _both(*parts)


def orthogonal(updates: torch.Tensor) -> torch.Tensor:
    """The nearest matrices (n, rows, columns) with singular values near 1, by Newton-Schulz iterations."""
    import torch

    a, b, c = COEFFICIENTS
    wide = updates if updates.shape[1] <= updates.shape[2] else updates.mT
    now = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(STEPS):
        gram = now @ now.mT
        now = torch.baddbmm(now, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), now, beta=a)
    return now if wide is updates else now.mT


def _muon(matrices: list[torch.nn.Parameter], params: Loop) -> Optimizer:
    """Muon over matrices; made here because torch takes seconds to import."""
    import torch

    class Muon(torch.optim.Optimizer):
        @torch.no_grad()
        def step(self, closure: Any = None) -> None:
            for group in self.param_groups:
                shapes: dict[torch.Size, list[tuple[torch.nn.Parameter, torch.Tensor]]] = {}
                for parameter in group["params"]:
                    if parameter.grad is None:
                        continue
                    momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                    momentum.lerp_(parameter.grad, 1 - MOMENTUM)
                    update = parameter.grad.lerp(momentum, MOMENTUM)
                    shapes.setdefault(parameter.shape, []).append((parameter, update))
                for shape, pairs in shapes.items():
                    self._move(pairs, group, group["lr"] * RMS * math.sqrt(max(shape)))

        def _move(self, pairs: list[tuple[torch.nn.Parameter, torch.Tensor]], group: dict[str, Any], rate: float) -> None:
            ways = orthogonal(torch.stack([update.float() for _, update in pairs]))
            for (parameter, _), way in zip(pairs, ways, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(way, alpha=-rate)

    return Muon(matrices, {"lr": params.muon_rate, "weight_decay": params.weight_decay})


def _both(*parts: Optimizer) -> Optimizer:
    """Several optimisers as one, for a trainer that knows one; the schedule scales every group's own rate."""
    import torch

    class Both(torch.optim.Optimizer):
        def __init__(self) -> None:
            super().__init__([{**group} for part in parts for group in part.param_groups], {})
            self._link()

        def _link(self) -> None:
            """The groups are the parts' own, so that a rate set here is the rate they step with."""
            self.param_groups = [group for part in parts for group in part.param_groups]

        def step(self, closure: Any = None) -> None:
            for part in parts:
                part.step()

        def zero_grad(self, set_to_none: bool = True) -> None:
            for part in parts:
                part.zero_grad(set_to_none)

        def state_dict(self) -> dict[str, Any]:
            return {"parts": [part.state_dict() for part in parts]}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            for part, state in zip(parts, state_dict["parts"], strict=True):
                part.load_state_dict(state)
            self._link()

    return Both()
