"""Whether who played and who trains agree on how likely the played tokens were: the same weights read the same tokens, so their
log-probabilities differ by rounding alone. What differs more was played by something else than what trains.

Where they differ by rounding that matters (an engine in bfloat16, a server's kernels), truncated importance sampling corrects the loss
(https://fengyao.notion.site/off-policy-rl): each token's loss times min(p_trainer / p_engine, cap).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tasks.checkpoints import adapters
from tasks.contract.params import StageFailed
from tasks.rl.core.batch import Batch
from tasks.rl.core.scoring import score

if TYPE_CHECKING:
    from torch import Tensor

    from tasks.rl.core.params import Loop

FULL, HALF = 0.001, 0.05
"""Mean differences of a token's log-probability above which something is wrong: where both compute in float32 (below 1e-5 in our
tests), and where one of them computes in half precision (a guess: not measured on a real model yet). Ours."""
FAR = 10.0
"""A token is far off from so many times the highest mean on."""
ROUNDING = 4.0
"""A difference below so many times the rounding of bfloat16 autocast is taken for a half precision's: weights that are rounded too, and
float16, are not far from it."""
EXPLAINED = 0.2
"""A guess explains a difference when no more than this share of it is left under the guess."""


@dataclass
class Mismatch:
    """tokens: compared. total: sum of |log p_trainer - log p_engine|; most: the largest; far: tokens above FAR x the highest mean."""

    tokens: int = 0
    total: float = 0.0
    most: float = 0.0
    far: int = 0

    def add(self, trainer: Tensor, batch: Batch, highest: float) -> None:
        """Compare at the tokens that were played in this step and train. trainer: (b, t) log-probabilities."""
        apart = (trainer.detach() - batch.engine_logp).abs()[(batch.mask * batch.played[:, None]).bool()]
        if len(apart):
            self.tokens += len(apart)
            self.total += float(apart.sum())
            self.most = max(self.most, float(apart.max()))
            self.far += int((apart > FAR * highest).sum())

    @property
    def mean(self) -> float:
        """Of a token, in nats."""
        return self.total / max(1, self.tokens)

    def join(self, other: Mismatch) -> None:
        """Count another's tokens too."""
        self.tokens, self.total, self.far = self.tokens + other.tokens, self.total + other.total, self.far + other.far
        self.most = max(self.most, other.most)

    def line(self) -> dict[str, float]:
        """What is logged of a step; nothing where nothing was compared."""
        if not self.tokens:
            return {}
        return {"mismatch_mean": self.mean, "mismatch_max": self.most, "mismatch_far": self.far / self.tokens}


def highest_mean(params: Loop) -> float:
    """The highest mean difference: the param's, or what the trainer's precision leaves."""
    return params.max_mismatch or (FULL if params.dtype == "float32" else HALF)


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
    own = (batch.mask * batch.played[:, None]).bool()
    weights = ((trainer - batch.engine_logp) * own).exp().clamp(max=cap)
    return replace(batch, old_logp=trainer.where(own, batch.old_logp), correction=weights)


def check(found: Mismatch, highest: float, model: Any, batch: Batch, temperature: float, bos: int | None, where: str) -> None:
    """StageFailed when the mean is above the highest: the numbers, what explains them, and what to look at.

    batch: the rows that were compared. temperature: of the sampling. bos: the tokenizer's first token, if it has one."""
    if found.mean <= highest:
        return
    import torch

    with torch.no_grad():
        told = list(_explanations(found.mean, _guesses(model, batch, temperature, bos), model, batch, temperature))
    why = "; ".join(told) or (
        "none of the usual causes explains it: the engine has other weights (another checkpoint, another adapter or an earlier step's) "
        "or reads other tokens (a chat template that is rendered anew, tokens that a server adds)"
    )
    raise StageFailed(
        f"{where}: the engine's log-probabilities are not the trainer's: they differ by {found.mean:.3g} a token in the mean (at most "
        f"{highest:g} is rounding), {found.most:.3g} at the most, by more than {FAR * highest:g} at {found.far / found.tokens:.0%} of "
        f"{found.tokens} tokens. Look at adapter, template and dtype: {why}. Nothing was learned from these conversations. If it is "
        "meant, raise max_mismatch of the loop and correct by its importance_cap."
    )


def _guesses(model: Any, batch: Batch, temperature: float, bos: int | None) -> Iterator[tuple[str, Tensor]]:
    """(cause, log-probabilities (n, t) under it)."""
    if adapters.has_adapter(model):
        with model.disable_adapter():
            yield "the engine plays the base without the adapter that trains", _scored(model, batch, temperature)
    if temperature != 1.0:
        cause = (
            f"its log-probabilities are those at temperature 1 and not at {temperature:g} (vLLM: --logprobs-mode processed_logprobs)"
        )
        yield cause, _scored(model, batch, 1.0)
    if bos is not None:
        yield f"it puts the token {bos} (beginning of text) before the prompt", _scored(model, _after(batch, bos), temperature)


def _explanations(mean: float, guesses: Iterable[tuple[str, Tensor]], model: Any, batch: Batch, temperature: float) -> Iterator[str]:
    import torch

    for cause, logp in guesses:
        if _mean(logp, batch.engine_logp, batch) < EXPLAINED * mean:
            yield cause
    if next(model.parameters()).dtype == torch.float32:
        exact = _scored(model, batch, temperature)
        with torch.autocast(exact.device.type, torch.bfloat16):
            rounding = _mean(_scored(model, batch, temperature), exact, batch)
        if mean < ROUNDING * rounding:
            yield f"it is of the size of bfloat16's rounding ({rounding:.3g}): the engine's dtype is a half precision, not float32"


def _scored(model: Any, batch: Batch, temperature: float) -> Tensor:
    return score(model, batch.ids, batch.present, batch.mask, temperature)[0]


def _mean(one: Tensor, other: Tensor, batch: Batch) -> float:
    apart = (one - other).abs()[(batch.mask * batch.played[:, None]).bool()]
    return float(apart.mean())


def _after(batch: Batch, first: int) -> Batch:
    """The rows with a token before their prompt."""
    import torch

    start = (batch.present.cumsum(dim=1) == 1) & (batch.present == 1)
    ids = torch.cat([batch.ids[:, :1], batch.ids], dim=1)
    present = torch.cat([batch.present[:, :1] * 0, batch.present], dim=1)
    before = torch.cat([start, start[:, :1] & False], dim=1)  # the place left of the first token
    return replace(batch, ids=ids.masked_fill(before, first), present=present.masked_fill(before, 1))
