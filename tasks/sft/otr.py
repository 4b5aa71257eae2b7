"""One-token rollout (OTR): each trained token is an episode of one step, and the data's token is the one that brings a reward.

Paper: "One-Token Rollout: Guiding Supervised Fine-Tuning of LLMs with Policy Gradient", https://arxiv.org/abs/2509.26313. Given the
data's tokens before a position, the model draws k tokens a_j there, from q = softmax(logits / kappa). A draw's reward R is 1 where it
is the data's token x, else beta <= 0, and the position costs -(1/k) sum_j R(a_j) log p(a_j), p = softmax(logits); draws and rewards
have no gradient. What the model would never say is never drawn and teaches nothing: it is for data that the model half knows.

In expectation, `k: exact`, the cost is -sum_a q(a) R(a) log p(a). At kappa 1 its gradient is 1 - beta times that of dynamic fine-tuning
(`dynamic_sft`): -(1 - beta) p(x) grad log p(x), since sum_a p(a) grad log p(a) = 0.

Departures:
1. The defaults of k, kappa and beta are not checked against the paper's text.
2. `exact` is ours; it costs less than drawing where the vocabulary is small, and has no noise.
3. No code of the authors was found. The mean is over all trained tokens of a step, weighted by row as everywhere in this room.

Cost: that of plain fine-tuning, and k draws a token from its softmax: (n, k) numbers and twice (n, v) for a pass of n trained tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from tasks.contract.context import Context
from tasks.contract.params import Params as Base
from tasks.sft.core import hooks as room
from tasks.sft.core.scoring import Tokens

if TYPE_CHECKING:
    from torch import Tensor

TITLE = "One-token rollout (OTR)"
PAPER = "https://arxiv.org/abs/2509.26313"
SLUG = "otr"


class Params(Base):
    """How tokens are drawn, and what a wrong one costs."""

    k: Annotated[int, Field(ge=1, le=65_536)] | Literal["exact"] = Field(
        256, description="tokens drawn at each position (paper: 256); exact: what they come to in expectation, without a draw"
    )
    kappa: float = Field(1.3, ge=0.1, le=10, description="temperature of the draws, above 1: more of what is unlikely (paper: 1.3)")
    beta: float = Field(-0.1, ge=-1, le=0, description="reward of a drawn token that is not the data's (paper: -0.1)")


class Otr(room.Hooks):
    """Another loss of a token; all else is the room's."""

    def __init__(self, k: int | Literal["exact"], kappa: float, beta: float) -> None:
        self.k, self.kappa, self.beta = k, kappa, beta

    def token_loss(self, tokens: Tokens) -> Tensor:
        """(n,) policy-gradient losses of the trained tokens; their values may be negative, the gradient is what counts."""
        logp = tokens.logits.float().log_softmax(-1)  # (n, v), also under autocast
        rewards = logp.new_full(logp.shape, self.beta).scatter_(1, tokens.targets[:, None], 1.0)
        return -(self.shares(tokens.logits.detach().float()) * rewards * logp).sum(-1)

    def shares(self, logits: Tensor) -> Tensor:
        """(n, v) how often each token is drawn at each position, as a share of the k draws; the softmax itself for `exact`."""
        import torch

        q = (logits / self.kappa).softmax(-1)
        if self.k == "exact":
            return q
        # torch's own generator: the loop seeds it, and a resume state keeps it, so a run that goes on draws what it would have drawn
        drawn = torch.multinomial(q, self.k, replacement=True)
        return torch.zeros_like(q).scatter_add_(1, drawn, torch.full_like(drawn, 1 / self.k, dtype=q.dtype))


def hooks(params: Params, ctx: Context) -> room.Hooks:
    """What the method changes in the training."""
    return Otr(params.k, params.kappa, params.beta)
