"""AdamW, with its states in 32 bits or in 8 (bitsandbytes, where it is installed)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.optim import Optimizer

PACKAGE = "bitsandbytes"


def check(optimizer: str) -> str:
    """What is wrong with the choice of an optimiser here, or an empty text."""
    if optimizer == "adamw_8bit" and find_spec(PACKAGE) is None:
        return f"optimizer: adamw_8bit needs {PACKAGE}, which is not there. Allowed: install it (pip install {PACKAGE}), or set adamw."
    return ""


def adamw(groups: Sequence[Any], optimizer: str, **more: Any) -> Optimizer:
    """Over parameters or groups of them. optimizer: adamw_8bit for states of 8 bits, any other name for float32. more: lr, betas."""
    import torch

    if optimizer == "adamw_8bit":
        from bitsandbytes.optim import AdamW8bit

        found: Optimizer = AdamW8bit(groups, **more)
        return found
    return torch.optim.AdamW(groups, fused=True, **more)
