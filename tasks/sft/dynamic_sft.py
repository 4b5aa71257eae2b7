"""Dynamic fine-tuning: a token's loss is scaled by the probability that the model itself gives the token.

Paper: "On the Generalization of SFT: A Reinforcement Learning Perspective with Reward Rectification",
https://arxiv.org/abs/2508.05629, section 3. With p the model's probability of the data's token, a token costs -sg(p) log p, sg: no
gradient. Plain fine-tuning is the policy gradient of a reward 1 / p; the factor takes that away, so that tokens which the model finds
unlikely (noise among them) pull less.

Departures:
1. `shuffled` is ours: the control without the reason. The same factors are dealt to the tokens of a batch at random, so that they
   shrink the step alike and follow nothing any more.

Cost: that of plain fine-tuning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from tasks.contract.context import Context
from tasks.contract.params import Params as Base
from tasks.sft.core import hooks as room
from tasks.sft.core.scoring import Tokens

if TYPE_CHECKING:
    from torch import Tensor

TITLE = "Dynamic fine-tuning (DFT)"
PAPER = "https://arxiv.org/abs/2508.05629"
SLUG = ""


class Params(Base):
    """Whose probability scales a token."""

    shuffled: bool = Field(False, description="scale each token by the probability of another one of its pass: a control; ours")


class Dft(room.Hooks):
    """Weights of tokens; all else is the room's."""

    def __init__(self, shuffled: bool = False) -> None:
        self.shuffled = shuffled

    def token_weight(self, tokens: Tokens) -> Tensor:
        """(n,) probabilities of the trained tokens, or these in another order."""
        import torch

        probabilities = (-tokens.nll).exp()
        return probabilities[torch.randperm(len(probabilities)).to(probabilities.device)] if self.shuffled else probabilities


def hooks(params: Params, ctx: Context) -> room.Hooks:
    """What the method changes in the training."""
    return Dft(params.shuffled)
