"""What a paper of this room may change in the training: a method is a `Hooks` with some of them overridden; defaults change nothing.

    class Mine(Hooks):
        def token_weight(self, tokens):      # DFT, https://arxiv.org/abs/2508.05629
            return torch.exp(-tokens.nll)

In the order in which the loop calls them: `row_weight`, `prepare`, `teacher`, `phases`; for each phase `begin`; for each step `step`
(which calls `count` and `objective`, and this `token_loss`, `token_weight` and `loss_term`) and `gradients`; now and then `validation`;
at the end `finish`. When a killed run goes on, every hook but those of a step is called again and must then do the same.

What a step draws at random (OTR's tokens) comes from torch's own generator, which the loop seeds and a resume state keeps: a run that
goes on draws what it would have drawn. Other hooks use `training.ctx.rng(name)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.contract.context import Context
from tasks.sft.core.data import Row, batches, collate
from tasks.sft.core.params import Loop
from tasks.sft.core.scoring import Tokens, rows_of, tokens_of

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from tasks.sft.core.scoring import Batch

    Teacher = Callable[[Batch], Tensor]
    """A collated batch -> the logits (n, v) of its trained tokens, without gradient."""


@dataclass(frozen=True)
class Training:
    """What hooks are told of the training. loop: its params. rows: the train split, as proven tokens. pad: the padding's token id."""

    loop: Loop
    rows: Sequence[Row]
    pad: int
    ctx: Context

    def batch(self, indices: Sequence[int]) -> Batch:
        """The rows with these indices as tensors on the device; see `data.collate`."""
        return {name: value.to(self.ctx.device) for name, value in collate([self.rows[i] for i in indices], self.pad).items()}

    def steps(self, loop: Loop | None = None, only: Sequence[int] | None = None, name: str = "batches") -> list[list[list[int]]]:
        """The steps of an ordinary training: `accumulate` batches each, of at most `batch_tokens` tokens, over all epochs, `max_steps`
        in all. loop: instead of the room's. only: indices of the rows to use. name: of the random stream; by another one, another
        order."""
        loop, rows = loop or self.loop, range(len(self.rows)) if only is None else only
        used = [self.rows[index] for index in rows]
        epochs = [batches(used, loop.batch_tokens, self.ctx.rng(name, n), loop.packing) for n in range(loop.epochs)]
        plan = [batch for epoch in epochs for batch in epoch]
        found = [[[rows[i] for i in batch] for batch in plan[at : at + loop.accumulate]] for at in range(0, len(plan), loop.accumulate)]
        return found[: loop.max_steps or None]


@dataclass(frozen=True)
class Phase:
    """One of several trainings in a row, with an optimiser and a schedule of its own.

    name: for people. steps: of each step its batches, of each batch the indices of its rows. loop: params of this phase; None: the
    room's (epochs, batch_tokens and accumulate are spent in `steps` already).
    """

    name: str
    steps: Sequence[Sequence[Sequence[int]]]
    loop: Loop | None = None


@dataclass(frozen=True)
class Step:
    """One step of the optimiser, for `Hooks.step`. batches: what was planned for it, on the device. parts: a batch -> the passes in
    which it fits into memory (`passes.parts`)."""

    model: PreTrainedModel
    batches: Sequence[Batch]
    hooks: Hooks
    teacher: Teacher | None
    autocast: Callable[[], AbstractContextManager[Any]]
    differentiate: Callable[[Tensor], None]
    parts: Callable[[Batch], Sequence[Batch]] = lambda batch: [batch]

    def learn(self, batch: Batch, count: Tensor) -> Tensor:
        """Add the gradient of a batch's part of the step's loss, pass by pass; returns that part. A term counts in each pass by its
        share of the batch's trained tokens."""
        trained = len(rows_of(batch))
        found = batch["row_weights"].new_zeros(())
        for one in self.parts(batch):
            loss = self.loss(one, count, len(self.batches) * trained / len(rows_of(one)))
            found = found + self.backward(loss * 0 if "idle" in one else loss)
        return found

    def loss(self, batch: Batch, count: Tensor | None = None, share: float = 1) -> Tensor:
        """objective / count + term / share. count: of all batches whose gradients add up to one mean; None: of this one alone."""
        count = self.hooks.count(batch) if count is None else count
        with self.autocast():
            logits = self.teacher(batch) if self.teacher else None
            total, term = self.hooks.objective(self.model, batch, logits)
            loss = total / count.clamp(min=1e-8)
            return loss if term is None else loss + term / share

    def backward(self, loss: Tensor) -> Tensor:
        """Add the loss's gradient to the parameters' `grad`; returns the loss without its graph."""
        self.differentiate(loss)
        return loss.detach()


class Hooks:
    """Plain supervised fine-tuning, hook by hook."""

    # --- which parameters train, and how they start and end

    def prepare(self, model: PreTrainedModel, training: Training) -> PreTrainedModel:
        """The loaded base -> the model to train: frozen parts, a head as a module of it, an adapter that starts otherwise than
        `loop.adapter` has it (EVA's SVD, https://arxiv.org/abs/2410.07170, runs batches of `training` through the base). The loop's own
        adapter is put on afterwards. Default: all parameters train as they are."""
        return model

    def finish(self, model: PreTrainedModel) -> PreTrainedModel:
        """The trained model -> the model to keep. An adapter that it wears is kept as `loop.adapter.save` says."""
        return model

    # --- rounds and phases

    def phases(self, training: Training) -> list[Phase]:
        """The trainings, one after another: HFT's rounds (https://arxiv.org/abs/2404.18466), LT-SFT's full and sparse phase
        (https://arxiv.org/abs/2110.07560), a schedule of datasets with replay. Default: one over all rows."""
        return [Phase("", training.steps())]

    def begin(self, number: int, model: PreTrainedModel, weights: Callable[[int], dict[str, Tensor]]) -> None:
        """Called before phase `number`, counted from 0, with the model as the phase before left it: free or freeze parameters (HFT),
        rewind them and choose a mask (LT-SFT). weights(0): the parameters by name before the first phase, weights(n) after phase n - 1;
        there are such only where there are several phases."""

    def gradients(self, model: PreTrainedModel) -> None:
        """Called when a step's gradients are complete, before they are clipped and used: LT-SFT multiplies them by its mask."""

    # --- a step and its loss

    def step(self, step: Step) -> Tensor:
        """Leave a step's gradient in the parameters' `grad`; returns its loss, for the curve. Default: the mean over all its batches.
        FOMAML (https://arxiv.org/abs/1803.02999; adapt_agent) moves the parameters by one batch, differentiates another, moves back."""
        count = sum(self.count(batch) for batch in step.batches)
        return sum(step.learn(batch, count) for batch in step.batches)

    def objective(self, model: PreTrainedModel, batch: Batch, teacher_logits: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(sum of a batch's losses, term of `loss_term`). Default: sum_j r_j w_j l_j over the trained tokens; r: row weight, w: token
        weight, l: token loss. A reward model replaces it by its own over `scoring.hidden_of`, with a head from `prepare`."""
        tokens = tokens_of(model, batch, teacher_logits)
        losses = tokens.row_weights * self.token_loss(tokens)
        weights = self.token_weight(tokens)
        total = losses if weights is None else losses * weights.detach()
        return total.sum(), self.loss_term(model, tokens)

    def count(self, batch: Batch) -> Tensor:
        """What the sum of a batch's losses is divided by, known before it is scored. Default: sum_j r_j, so that the loss is a mean
        over tokens, weighted by row. RISE (https://arxiv.org/abs/2407.18219) divides by the number of rows."""
        weights: Tensor = batch["row_weights"][rows_of(batch)].sum()
        return weights

    def token_loss(self, tokens: Tokens) -> Tensor:
        """(n,) losses of the trained tokens. Default: the negative log-likelihood. `otr` takes a policy gradient over the logits
        instead."""
        return tokens.nll

    def token_weight(self, tokens: Tokens) -> Tensor | None:
        """(n,) weights of any sign, or None for ones. They are detached and scale the losses without entering `count`, as in DFT
        (https://arxiv.org/abs/2508.05629, section 3)."""
        return None

    def loss_term(self, model: PreTrainedModel, tokens: Tokens) -> Tensor | None:
        """A scalar added to a batch's mean loss (over several batches: its mean): LT-SFT's pull towards the base, L2M's towards a key
        (https://arxiv.org/abs/2306.14884), a distance from `tokens.teacher_logits`."""
        return None

    def teacher(self, model: PreTrainedModel, training: Training) -> Teacher | None:
        """Whose logits come with each batch: the base before it moves or the model without its adapter (`core/teachers.py`), as a
        reference or to distil from (emulated fine-tuning's pairs of models, https://arxiv.org/abs/2310.12962). Default: nobody's."""
        return None

    # --- rows

    def row_weight(self, row: Mapping[str, Any]) -> float:
        """A row of `schemas.DATASET` -> a factor >= 0 of the weight that the filter gave it: RISE's exp(reward / tau), imbalance."""
        return 1.0

    def validation(self, model: PreTrainedModel, batch: Batch) -> tuple[Tensor, int]:
        """(sum, count) of what is measured on the validation split. Default: every trained token's negative log-likelihood, unweighted,
        so that methods stay comparable."""
        nll = tokens_of(model, batch).nll
        return nll.sum(), len(nll)
