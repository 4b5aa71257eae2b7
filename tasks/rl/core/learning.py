"""What a step learns from its rows: the method's advantages, its optimiser steps, and the comparison of who played with who trains."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tasks.checkpoints.agreement import Mismatch
from tasks.contract.params import StageFailed
from tasks.rl.core import mismatch, record
from tasks.rl.core.batch import Batch, Row, checked, collate, named, parts, units
from tasks.rl.core.figures import Figures
from tasks.rl.core.learners import Learner
from tasks.rl.core.models import Models
from tasks.rl.core.record import Record
from tasks.rl.core.scoring import slices
from tasks.training import distributed

if TYPE_CHECKING:
    from torch import Tensor

IDLE = 16
"""Conversations that are compared with the trainer's log-probabilities in a step in which none trains."""


class Learning:
    """One step's. now: gathers its figures. moved: numbers of the policies that it has updated: no longer who played its rows."""

    def __init__(self, models: Models, record: Record, now: Figures) -> None:
        self.models, self.params, self.hooks, self.ctx = models, models.params, models.hooks, models.ctx
        self.record, self.now = record, now
        self.moved: set[int] = set()

    def learn(self, rows: Sequence[Row]) -> None:
        """Move policies and critic by what the rows teach."""
        batch = self.judged(rows)
        if not batch.mask.any():
            self._compare_idle(rows)
        for part in self.minibatches(batch):
            self.update(batch, part)
        self.now.join_processes()
        self.models.gather()

    def judged(self, rows: Sequence[Row]) -> Batch:
        """The rows as tensors, with what critic and reference say of them, and the method's advantages for those that train."""
        import torch

        batch = self.models.before(collate(rows, self.models.pad, self.record.step, self.params.steps, self.record.lines))
        chosen = torch.tensor([index for index, row in enumerate(rows) if row.trains], dtype=torch.long)
        advantages = torch.zeros(len(rows), 1)
        returns = None
        if len(chosen):
            part = batch.take(chosen)
            shape = tuple(part.mask.shape)
            found = checked("advantages", self.hooks.advantages(part), [shape[:1], shape])
            found = found[:, None] if found.dim() == 1 else found
            advantages = torch.zeros(len(rows), found.shape[1]).index_put((chosen,), found)
            if (aims := self.hooks.returns(part)) is not None:
                returns = torch.zeros(batch.mask.shape).index_put((chosen,), checked("returns", aims, [shape]))
        return replace(batch, advantages=advantages, returns=returns).to(self.ctx.device)

    def minibatches(self, batch: Batch) -> Iterator[list[Tensor]]:
        """For each optimiser step its rows, in random order: units that stay together, rows or whole groups."""
        import torch

        noise = torch.Generator().manual_seed(self.ctx.seed_for("step", batch.step) % 2**31)
        together = units(batch.groups.cpu(), self.hooks.whole_groups)
        for _ in range(self.hooks.epochs):
            order = [together[index] for index in torch.randperm(len(together), generator=noise).tolist()]
            yield from parts(order, self.hooks.minibatches)

    def update(self, batch: Batch, part: Sequence[Tensor]) -> None:
        """One optimiser step of every policy that has rows in this part of the batch, and of the critic."""
        import torch

        learned = False
        owners = batch.policies.cpu()
        for number, policy in enumerate(self.models.policies):
            mine = [unit[owners[unit] == number] for unit in part]
            mine = [unit for unit in mine if len(unit)]
            if not mine:
                continue
            whole = batch.take(torch.cat(mine))
            whole = replace(whole, divisor=self.hooks.divisor(whole).clamp(min=1))
            learned = learned or bool(whole.mask.any())
            total, apart = 0.0, Mismatch() if number not in self.moved else None
            together = torch.arange(len(whole.rows)).split([len(unit) for unit in mine])
            found = slices(together, whole, self.models.lines, self.hooks.whole_rows or self.hooks.whole_groups)
            passes = [one for one in found if one.mask.any()]
            for at_once in distributed.share(passes, _idle):
                loss = self.loss(policy.module, at_once, apart)
                (loss * distributed.size() if self.models.several else loss).backward()  # the processes' gradients are averaged
                total += float(loss.detach())
            if not passes:
                policy.rest()
            if apart is not None:
                self._check_mismatch(Mismatch.of(distributed.gathered(apart)), policy.module, whole)
            self.moved.add(number)
            self._step(policy, "policy", sum(distributed.gathered(total)), whole)
        if (critic := self.models.critic) and learned:
            if all(weight.grad is None for weight in critic.module.parameters()):
                raise StageFailed("rl: the method has a critic, but its `loss_terms` give it no gradient, so it would learn nothing.")
            self._step(critic, "critic", 0.0, batch)

    def loss(self, model: Any, batch: Batch, apart: Mismatch | None = None) -> Tensor:
        """A slice's part of an optimiser step's loss: the method's token losses over its divisor, and its own terms; 0 if none trains.
        apart: counts how far the model's log-probabilities are from the engine's, while it is still the model that played the rows."""
        now = self.models.scored(model, batch, self.models.critic)
        if apart is not None:
            played = mismatch.evaluated(model, batch, self.params.temperature) if mismatch.drops(model) else now.logp
            self._compare(apart, played, batch)
        if not batch.mask.any():
            return now.logp.sum()
        total = batch.mean(self.hooks.token_loss(now, batch) * batch.correction)
        for name, term in self.hooks.loss_terms(now, batch).items():
            total = total + term
            self.now.losses[name] += float(term.detach()) / (self.hooks.epochs * self.hooks.minibatches)
        self.now.entropy += float(now.entropy.sum())
        self.now.tokens += int(batch.mask.sum())
        return total

    def _step(self, learner: Learner, name: str, loss: float, batch: Batch) -> None:
        """Move a learner by its gradients. StageFailed, and the last saved state stays, when these or the loss are not finite."""
        norm = learner.clip()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            state = record.newest(self.ctx.scratch)
            kept = f"The state after step {state.name} is kept ({state})." if state else "No state was saved."
            raise StageFailed(
                f"{self._where()}: the loss is {loss:g}, the norm of the {name}'s gradient {norm:g}. {named(batch)} {kept} Lower lr "
                f"({self.params.lr:g}) or max_grad_norm ({self.params.max_grad_norm:g})."
            )
        learner.update()

    def _where(self) -> str:
        return f"rl: step {self.record.step + 1} of {self.params.steps}"

    def _compare(self, apart: Mismatch, trainer: Tensor, batch: Batch) -> None:
        apart.add(mismatch.apart(trainer, batch), mismatch.highest_mean(self.params), mismatch.turns(batch))

    def _check_mismatch(self, apart: Mismatch, model: Any, batch: Batch) -> None:
        """Stop before an update that would learn from what another model, or another prompt, has played."""
        self.now.mismatch.join(apart)
        bos = self.models.tokenizer.bos_token_id
        mismatch.check(apart, mismatch.highest_mean(self.params), model, batch, self.params.temperature, bos, self._where())

    def _compare_idle(self, rows: Sequence[Row]) -> None:
        """Of a step in which no group trains some conversations are compared: a wrong adapter may be why all of them failed."""
        for number, policy in enumerate(self.models.policies):
            some = [replace(row, trains=True) for row in rows if row.talk and row.turns and row.policy == number][:IDLE]
            if some:
                batch = collate(some, self.models.pad, 0, 1, ()).to(self.ctx.device)
                apart = Mismatch()
                with self.models.autocast():
                    logp = mismatch.evaluated(policy.module, batch, self.params.temperature)
                self._compare(apart, logp, batch)
                self._check_mismatch(apart, policy.module, batch)


def _idle(batch: Batch) -> Batch:
    """A pass in which nothing trains."""
    return replace(batch, mask=batch.mask * 0)
