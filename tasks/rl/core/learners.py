"""What learns in the loop: policies and a critic, each with an optimiser of its own; and the reference, which does not."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tasks.checkpoints import folders
from tasks.checkpoints.adapters import active_adapter
from tasks.checkpoints.starting import START
from tasks.training import distributed
from tasks.training.optimizers import adamw

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import PreTrainedModel


class Learner:
    """A module that trains: AdamW without decay, its learning rate after `schedule` over `updates` optimiser steps."""

    def __init__(self, module: Any, lr: float, schedule: str, updates: int, max_norm: float, optimizer: str = "adamw") -> None:
        self.module, self.max_norm = module, max_norm
        self.lr, self.schedule, self.updates, self.done = lr, schedule, updates, 0
        self.optimizer = adamw(folders.trainable(module), optimizer, lr=lr, weight_decay=0.0)

    def clip(self) -> float:
        """Clip the gradients that are there to `max_norm`; returns the norm that they had."""
        import torch

        return float(distributed.full(torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.max_norm)))

    def rest(self) -> None:
        """Gradients of zero, for a step in which nothing trains."""
        import torch

        for weight in folders.trainable(self.module):
            weight.grad = torch.zeros_like(weight)

    def update(self) -> None:
        """One optimiser step with the gradients that are there; they are gone afterwards."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * rate(self.schedule, self.done, self.updates)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.done += 1

    def state(self) -> dict[str, Any]:
        """What a resumed run needs, of several processes this one's slices. What does not train is as `prepare` makes it."""
        if distributed.size() > 1:
            return {**distributed.slices(self.module, self.optimizer), "done": self.done}
        moved = {name: value.detach() for name, value in self.module.named_parameters() if value.requires_grad}
        return {"weights": moved, "optimizer": self.optimizer.state_dict(), "done": self.done}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        if distributed.size() > 1:
            distributed.restore(self.module, self.optimizer, state)
        else:
            self.module.load_state_dict(state["weights"], strict=False)
            self.optimizer.load_state_dict(state["optimizer"])
        self.done = state["done"]


def rate(schedule: str, done: int, updates: int) -> float:
    """The learning rate's factor after `done` of all optimiser steps, in [0, 1]; transformers' schedules without warm-up."""
    match schedule:
        case "linear":
            return max(0.0, float(updates - done) / float(max(1, updates)))
        case "cosine":
            return max(0.0, 0.5 * (1.0 + math.cos(math.pi * (float(done) / float(max(1, updates))))))
        case _:
            return 1.0


def critic_of(model: PreTrainedModel, frozen: bool = False) -> Module:
    """A critic: a copy of the model's decoder with a linear head that starts at 0; frozen: only the head learns (MARFT).

    ids (b, l), packed to the left -> values (b, l), float32: of the state after each id. more: what the decoder is called with beside.
    """
    import torch

    class Critic(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder = copy.deepcopy(model.get_decoder()).requires_grad_(not frozen)
            self.head = torch.nn.Linear(model.config.get_text_config().hidden_size, 1, device=model.device)
            torch.nn.init.zeros_(self.head.weight)
            torch.nn.init.zeros_(self.head.bias)

        def forward(self, ids: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
            hidden = self.decoder(input_ids=ids, use_cache=False, **more).last_hidden_state
            return self.head(hidden).float()[..., 0]

    return Critic()


@contextmanager
def reference_of(policy: Any, start: Any) -> Iterator[Any]:
    """The start checkpoint for scoring: the policy itself with its adapter off, or with that of the start where it goes on from one;
    `start`, another model, where there is no adapter. One base in memory."""
    if start is not None:
        yield start
    elif START in policy.peft_config:
        trains = active_adapter(policy)
        policy.set_adapter(START, inference_mode=True)
        try:
            yield policy
        finally:
            policy.set_adapter(trains)
    else:
        with policy.disable_adapter():
            yield policy
