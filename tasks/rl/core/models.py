"""The models of a run: policies and a critic, which learn, and a reference, which does not; what they say of tokens, and how they are
kept."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.checkpoints import adapters, starting
from tasks.contract.context import Context
from tasks.contract.params import StageFailed
from tasks.rl import Inputs, Loop
from tasks.rl.core.batch import Batch, Scored
from tasks.rl.core.hooks import Hooks
from tasks.rl.core.learners import Learner, reference_of
from tasks.rl.core.mismatch import corrected
from tasks.rl.core.scoring import Lines, score, values
from tasks.training import distributed, fitting, packs

if TYPE_CHECKING:
    from torch import Tensor

STATE = "learners.pt"
"""In a folder to resume from: weights and optimisers of all that learn."""


class Models:
    """policies: in the order of their numbers. critic, reference: None without one; the reference too where it is the policy without
    its adapter. Of several processes each holds slices of all of them, and the first a whole copy of each policy beside it, which plays
    and is kept."""

    def __init__(self, inputs: Inputs, params: Loop, hooks: Hooks, ctx: Context) -> None:
        from transformers import set_seed

        self.params, self.hooks, self.ctx = params, hooks, ctx
        self.several = distributed.size() > 1
        if self.several:
            check_shared(hooks)
        self.wholes: list[Any] = []
        updates = params.steps * hooks.epochs * hooks.minibatches

        def learner(module: Any, lr: float) -> Learner:
            fitting.narrow(module, params.dtype)
            if self.several:
                self.wholes.append(distributed.whole_of(module, ctx.device))
                distributed.shard(module)
            return Learner(module.train(), lr, params.schedule, updates, params.max_grad_norm, params.optimizer)

        self.policies: list[Learner] = []
        for number in range(hooks.policies):
            self.begun = starting.begin(inputs.sft / "model", params.adapter, ctx.artifacts, ctx.device)
            set_seed(ctx.seed_for("prepare", *([number] if number else [])) % 2**31)
            model = self.begun.wear(hooks.prepare(self.begun.model))
            model = self.begun.remember(model) if hooks.reference else model
            if params.checkpointing:
                fitting.checkpoint(model, "rl")
            if params.packing != "none":
                packs.prepare_model(model, params.max_episode_tokens, "rl")
            self.policies.append(learner(model, params.lr))
        self.critic, self.reference = None, None
        if type(hooks).critic is not Hooks.critic and (
            critic := hooks.critic(adapters.load_whole(inputs.sft / "model", ctx.artifacts, ctx.device)[0])
        ):
            self.critic = learner(*critic)
        if hooks.reference and ("reference" in inputs.others or not adapters.has_adapter(self.policies[0].module)):
            other = inputs.others.get("reference", inputs.sft) / "model"
            self.reference = adapters.load(other, ctx.artifacts, ctx.device)[0].requires_grad_(False)
            fitting.narrow(self.reference, params.dtype)
            if self.several:
                distributed.shard(self.reference)
        self.tokenizer = self.begun.tokenizer
        self.pad = int(self.tokenizer.pad_token_id or 0)
        self.lines = Lines(params.packing, params.pass_tokens)

    @property
    def under_adapter(self) -> str:
        """The weights (`adapters.weights_of`) on which the first policy wears an adapter; "" when it wears none."""
        base = self.begun.base if adapters.has_adapter(self.policies[0].module) else None
        return base.weights if base else ""

    def player(self, number: int) -> Any:
        """The policy to play with and to keep, whole: of several processes a copy on the first, None on the others."""
        return self.wholes[number] if self.several else self.policies[number].module

    def gather(self) -> None:
        """Bring what the policies have learned to the whole copies. Needs every process."""
        for policy, whole in zip(self.policies, self.wholes, strict=False):
            distributed.gather(policy.module, whole)

    # What they say of tokens.

    def autocast(self) -> Any:
        """In which scoring computes."""
        return fitting.autocast(self.ctx.device, self.params.dtype)

    def scored(self, model: Any, batch: Batch, critic: Learner | None) -> Scored:
        """What a model, and a critic, say of the trained tokens."""
        with self.autocast():
            where = (batch.ids, batch.sequences, batch.mask)
            logp, entropy = score(model, *where, self.params.temperature, self.hooks.entropy_gradient, self.lines)
            return Scored(logp, entropy, values(critic.module, *where, self.lines) if critic else None)

    def before(self, batch: Batch) -> Batch:
        """A step's batch (on the CPU) with what reference and critic say of it, and corrected for the engine where that is wanted: all
        before the step's first update."""
        import torch

        with torch.no_grad():
            there = batch.to(self.ctx.device)
            if self.hooks.reference:
                with reference_of(self.policies[0].module, self.reference) as reference:
                    batch = replace(batch, ref_logp=self._logp(reference, there).cpu())
            if self.params.importance_cap:
                batch = corrected(batch, self._of_owners(there).cpu(), self.params.importance_cap)
            if self.critic:
                with self.autocast():
                    found = values(self.critic.module, there.ids, there.sequences, there.mask, self.lines)
                batch = replace(batch, values=found.cpu())
        return batch

    def _of_owners(self, batch: Batch) -> Tensor:
        """Log-probabilities (n, t) of every row's tokens by the policy that played it."""
        found = batch.engine_logp
        for number, policy in enumerate(self.policies):
            found = self._logp(policy.module, batch).where((batch.policies == number)[:, None], found)
        return found

    def _logp(self, model: Any, batch: Batch) -> Tensor:
        """A model's log-probabilities (n, t) of a batch's tokens; of several processes each scores its share of the rows."""
        import torch

        if not self.several:
            return self.scored(model, batch, None).logp
        mine = torch.arange(len(batch.rows))[distributed.rank() :: distributed.size()]
        found = torch.zeros_like(batch.engine_logp)
        found[mine.to(found.device)] = self.scored(model, batch.take(mine), None).logp
        return distributed.total(found)

    # How they are kept.

    def keep(self, folder: Path) -> None:
        """Every policy as a checkpoint, as the method finishes it; training may go on with the policies themselves."""
        finishes = type(self.hooks).finish is not Hooks.finish
        for number in range(len(self.policies)):
            whole = self.player(number)
            wide = self.params.dtype == "float32" or adapters.has_adapter(whole)  # an adapter trains in float32
            changed = finishes or not wide
            model = copy.deepcopy(whole) if changed else whole
            if changed:
                fitting.widen(model)
            names = (f"policy_{number}", f"adapter_{number}") if number else ("model", "adapter")
            self.begun.keep(self.hooks.finish(model), folder / names[0], folder / names[1], may_change=changed)

    def save(self, folder: Path) -> None:
        """What `resume` needs."""
        import torch

        torch.save([learner.state() for learner in self._learners()], folder / STATE)

    def resume(self, folder: Path) -> None:
        """Go on from what `save` wrote."""
        import torch

        found = torch.load(folder / STATE, map_location=self.ctx.device, weights_only=True)
        for learner, one in zip(self._learners(), found, strict=True):
            learner.resume(one)
        self.gather()

    def _learners(self) -> list[Learner]:
        return [*self.policies, *([self.critic] if self.critic else [])]


def check_shared(hooks: Hooks) -> None:
    """StageFailed for a method that several processes cannot share."""
    if type(hooks).critic is not Hooks.critic:
        raise StageFailed(
            "rl: the method has a critic, a module of its own kind, for which it needs whole weights in one process. Set "
            "loop.distributed: {kind: none, processes: 1}."
        )
