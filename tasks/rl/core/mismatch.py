"""Whether who played and who trains agree on how likely the played tokens were (`tasks.checkpoints.agreement`).

Where they differ by rounding that matters (an engine in bfloat16, a server's kernels), truncated importance sampling corrects the loss
(https://fengyao.notion.site/off-policy-rl): each token's loss times min(p_trainer / p_engine, cap).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tasks.checkpoints import agreement
from tasks.rl.core.batch import Batch, collate
from tasks.rl.core.scoring import score

if TYPE_CHECKING:
    from torch import Tensor

    from tasks.rl.core.params import Loop

ADVICE = (
    "Nothing was learned from these conversations. If it is meant, raise max_mismatch and correct by importance_cap, both of the loop."
)


def highest_mean(params: Loop) -> float:
    """The highest mean difference: the param's, or what the trainer's precision leaves."""
    return agreement.highest_mean(params.max_mismatch, params.dtype)


def apart(trainer: Tensor, batch: Batch) -> Tensor:
    """(n,) differences at the tokens that were played in this step and train. trainer: (b, t) log-probabilities."""
    return (trainer.detach() - batch.engine_logp)[_own(batch)]


def turns(batch: Batch) -> Tensor:
    """(n,) in which turn of its conversation each of these tokens stands."""
    return batch.turns[_own(batch)]


def drops(model: Any) -> bool:
    """Whether the model, in the mode in which it trains, drops some of its activations: no log-probability is then the engine's."""
    import torch

    return any(isinstance(module, torch.nn.Dropout) and module.p > 0 and module.training for module in model.modules())


def evaluated(model: Any, batch: Batch, temperature: float) -> Tensor:
    """Log-probabilities (n, t) without gradient, with nothing dropped; the model's mode is as it was afterwards."""
    import torch

    training = model.training
    with torch.no_grad():
        found = _scored(model.eval(), batch, temperature)
    model.train(training)
    return found


def corrected(batch: Batch, trainer: Tensor, cap: float) -> Batch:
    """Truncated importance sampling: the trainer's own log-probabilities (n, t) before the step's first update are what a method's
    ratio starts from, and each played token's loss is weighted by min(p_trainer / p_engine, cap)."""
    own = _own(batch)
    weights = ((trainer - batch.engine_logp) * own).exp().clamp(max=cap)
    return replace(batch, old_logp=trainer.where(own, batch.old_logp), correction=weights)


def check(found: agreement.Mismatch, highest: float, model: Any, batch: Batch, temperature: float, bos: int | None, where: str) -> None:
    """StageFailed when the mean is above the highest. batch: the rows that were compared."""

    def scored(temperature: float, first: int | None) -> Tensor:
        read = batch
        if first is not None:
            read = collate([row.after(first) for row in batch.rows], 0, batch.step, batch.steps, ()).to(str(batch.ids.device))
        return _scored(model, read, temperature)[_own(read)]

    played = batch.engine_logp[_own(batch)]
    agreement.check(found, highest, model, scored, played, temperature, bos, where, "trainer", ADVICE)


def _own(batch: Batch) -> Tensor:
    """(b, t) whether the token was played in this step and trains."""
    return (batch.mask * batch.played[:, None]).bool()


def _scored(model: Any, batch: Batch, temperature: float) -> Tensor:
    return score(model, batch.ids, batch.sequences, batch.mask, temperature)[0]
