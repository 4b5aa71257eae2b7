"""Group relative policy optimisation over whole conversations: the reward of a conversation against those of its group.

Papers: DeepSeekMath, https://arxiv.org/abs/2402.03300, section 4.1.1 (outcome supervision: A = (r - mean) / std of the
group, the clipped ratio of eq. 3 for each token); DAPO, https://arxiv.org/abs/2503.14476, eq. 8 (loss averaged over the
tokens of a step, groups without spread dropped); the multi-turn recipe of https://arxiv.org/abs/2510.01132 (one episode is
one sequence, tokens that the model did not produce are masked, all of an episode's tokens share its advantage).

Departures:
1. No KL term: beta is 0, as in DAPO.
2. Groups are dropped by their raw outcomes, so that shaped rewards cannot bring a group without spread to life; dropped
   groups are counted and not replaced by further sampling (DAPO's dynamic sampling); instead their problem waits.
3. The ratio's denominator is the probability recorded when the token was sampled. One pass is made over each step's
   conversations, so that the ratio is 1 up to rounding and the clip binds only if a method takes more. (On a GPU the loss
   runs in bfloat16 autocast and sampling in float32: up to that rounding.)

Cost: groups x group_size conversations a step; 2.2 to 2.6 s for 64 conversations of a 0.66 M model on one thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from tasks.contract.context import Context
from tasks.contract.params import BadInput
from tasks.contract.params import Params as Base
from tasks.rl.core.batch import Batch, Scored
from tasks.rl.core.hooks import Hooks, clipped

if TYPE_CHECKING:
    from torch import Tensor

TITLE = "GRPO over whole conversations"
PAPER = "https://arxiv.org/abs/2402.03300"
SLUG = "multi_turn_rl"


class Params(Base):
    """What is GRPO's own: how rewards become advantages, and the clip."""

    scale: Literal["group", "none"] = Field("group", description="divide by the group's standard deviation (DeepSeekMath) or not")
    clip_low: float = Field(0.2, gt=0, lt=1, description="the ratio is clipped below 1 - this; DeepSeekMath's epsilon")
    clip_high: float = Field(0.2, gt=0, description="the ratio is clipped above 1 + this; DAPO raises it to 0.28")


def check(params: Params) -> None:
    """Raise BadInput for combinations that make no sense."""
    if params.clip_high < params.clip_low:
        raise BadInput(f"clip_high = {params.clip_high} is below clip_low = {params.clip_low}. Allowed: at least clip_low.")


@dataclass(frozen=True, kw_only=True)
class Grpo(Hooks):
    """What GRPO puts into the room's hooks; the loss is divided by the trained tokens of a step, as it is at rest (DAPO, eq. 8)."""

    params: Params

    def advantages(self, batch: Batch) -> Tensor:
        """(r - mean) / (std + 1e-4) within each group; std with n - 1, and the constant, as in TRL."""
        import torch

        advantages = torch.zeros_like(batch.rewards)
        for group in batch.groups.unique():
            mine = batch.rewards[batch.groups == group]
            scale = mine.std() + 1e-4 if self.params.scale == "group" else 1.0
            advantages[batch.groups == group] = (mine - mine.mean()) / scale
        return advantages

    def token_loss(self, now: Scored, batch: Batch) -> Tensor:
        """-min(ratio A, clip(ratio) A), DeepSeekMath eq. 3; the ratio of masked tokens is 1."""
        return clipped(now, batch, self.params.clip_low, self.params.clip_high)


def hooks(params: Params, ctx: Context) -> Grpo:
    """GRPO's part of the loop."""
    return Grpo(params=params)
