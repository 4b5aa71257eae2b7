"""What a training holds in memory: the numbers' width, activations that are computed again, and what to lower when it does not fit."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal

from tasks.contract.params import StageFailed

if TYPE_CHECKING:
    from torch.nn import Module

Dtype = Literal["float32", "bfloat16"]
DTYPE = (
    "in which the model is computed; bfloat16: what trains and the optimiser's states stay float32, frozen weights are held in "
    "bfloat16 if the checkpoint's own are that coarse"
)
"""What `dtype` means, for the help of the rooms' params."""
CHECKPOINTING = "keep each layer's input alone and compute the rest again in the backward pass: less memory, a third more time"
"""What `checkpointing` means."""


def narrow(model: Module, dtype: Dtype) -> None:
    """Hold a model's frozen weights in bfloat16 where that changes none of them, and what trains in float32; in place."""
    import torch

    if dtype == "float32":
        return
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
        elif weight.dtype == torch.float32 and bool((weight.bfloat16().float() == weight).all()):
            weight.data = weight.data.bfloat16()


def checkpoint(model: Any, where: str) -> None:
    """Let a model compute its activations again in the backward pass. where: the room's name. StageFailed for one that cannot."""
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise StageFailed(f"{where}: {type(model).__name__} cannot compute activations again. Set loop.checkpointing: false.")
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})


def widen(model: Module) -> None:
    """Weights in float32 again, for keeping: an adapter is merged into them without loss."""
    model.float()


def autocast(device: str, dtype: Dtype) -> AbstractContextManager[Any]:
    """In which a forward pass computes."""
    import torch

    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=dtype == "bfloat16")


def advice(loop: Any, largest: str) -> str:
    """Which params of a loop make a training smaller, in the order in which to try them.

    loop: the room's params. largest: of what it passes at once when pass_tokens does not bound it, in words.
    """
    ways = [f"lower pass_tokens (now {loop.pass_tokens or f'0, so that {largest} are passed at once'})"]
    ways += [] if loop.checkpointing else ["set checkpointing: true"]
    ways += [] if loop.dtype == "bfloat16" else ["set dtype: bfloat16"]
    return f"Of the params of its loop, in this order: {'; '.join(ways)}."
