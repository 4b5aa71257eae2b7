"""The room's loop: screen problems by play, then sample groups of conversations, judge them, take a step, validate, keep
the best.

A checkpoint is reinforced in one world. Every conversation goes through `tasks.worlds.api.play`, the outcome is the world's own,
and the best checkpoint is the one with the highest sampled pass^1 on the validation split, as long as no family fell too far.
`Training.step` is one step, top-down; what a method changes in it stands in `hooks.py`.

1. The noise of step s is keyed by s, and global generators are seeded anew in each step, so that a run that was killed
   continues from its last saved state and ends in the same bytes.
2. Conversations that failed by the human's or a tool's fault are left out, groups whose raw outcomes agree are dropped;
   both are counted.

Cost a step: groups x group_size conversations, one forward and backward pass over the tokens of the groups that are kept.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tasks.checkpoints import adapters, starting
from tasks.checkpoints.agreement import Mismatch
from tasks.contract.context import Context
from tasks.contract.params import BadInput, StageFailed, nearest
from tasks.rl import Inputs, Loop
from tasks.rl.core import mismatch, record
from tasks.rl.core.batch import Batch, Row, Scored, checked, collate, named, parts, units
from tasks.rl.core.figures import Figures
from tasks.rl.core.hooks import Hooks, Job, Play
from tasks.rl.core.learners import Learner, reference_of
from tasks.rl.core.pool import Screened, choose_pool
from tasks.rl.core.record import Record
from tasks.rl.core.reward_model import RewardModel
from tasks.rl.core.rollouts import Rollouts
from tasks.rl.core.scoring import Lines, score, slices, values
from tasks.training import fitting, packs

if TYPE_CHECKING:
    from torch import Tensor

IDLE = 16
"""Conversations that are compared with the trainer's log-probabilities in a step in which none trains."""


def run(inputs: Inputs, params: Loop, hooks: Hooks, ctx: Context) -> dict[str, Any]:
    """Reinforce `inputs.sft` in `inputs.world`; leaves model/ and curves.csv in `ctx.out` and returns figures."""
    training = Training(inputs, params, hooks, ctx)
    training.start()
    while training.record.step < params.steps and not training.record.stopped:
        training.step()
    figures = record.publish(training.record, ctx.scratch, ctx.out, training.screened, params.max_family_fall)
    return {
        **figures,
        **starting.trained(training.policies[0].module),
        "screening_lost_by": dict(sorted(training.rollouts.lost.items())),
    }


class Training:
    """A run: its policies, what has happened, and the step."""

    def __init__(self, inputs: Inputs, params: Loop, hooks: Hooks, ctx: Context) -> None:
        from transformers import set_seed

        from tasks.worlds.api.frozen import load

        known = sorted(path.parent.name for path in inputs.worlds.glob("*/world.json"))
        if inputs.world not in known:
            raise BadInput(f"rl: no world {inputs.world!r}.{nearest(inputs.world, known)} Frozen worlds: {', '.join(known)}.")
        self.ctx, self.params, self.hooks = ctx, params, hooks
        updates = params.steps * hooks.epochs * hooks.minibatches

        def learner(module: Any, lr: float) -> Learner:
            fitting.narrow(module, params.dtype)
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
                packs.check_model(model, params.max_episode_tokens, "rl")
            self.policies.append(learner(model, params.lr))
        self.critic, self.reference = None, None
        if type(hooks).critic is not Hooks.critic and (
            critic := hooks.critic(adapters.load_whole(inputs.sft / "model", ctx.artifacts, ctx.device)[0])
        ):
            self.critic = learner(*critic)
        if hooks.reference and ("reference" in inputs.others or not adapters.has_adapter(self.policies[0].module)):
            other = inputs.others.get("reference", inputs.sft) / "model"
            self.reference = adapters.load(other, ctx.artifacts, ctx.device)[0].requires_grad_(False)
        self.reward_model = RewardModel.load(inputs.others["reward"] / "model", ctx.device) if "reward" in inputs.others else None
        if self.reference:
            fitting.narrow(self.reference, params.dtype)
        self.lines = Lines(params.packing, params.pass_tokens)
        self.tokenizer, self.others = self.begun.tokenizer, inputs.others
        human = ctx.human(inputs.world)
        base = self.begun.base if adapters.has_adapter(self.policies[0].module) else None
        adapters.lend(human, self.policies[0].module, base.weights if base else "")
        self.rollouts = Rollouts(ctx, params, load(inputs.worlds / inputs.world), human, self.tokenizer)
        self.screened: list[Screened] = []
        self.pool: list[Screened] = []
        self.record = Record()
        self.now = Figures()
        self.moved: set[int] = set()
        """Numbers of the policies that this step has updated: no longer who played its conversations."""

    def start(self) -> None:
        """Choose the pool, and go on from the last saved state, or validate the start."""
        self.ctx.progress(0, self.params.steps, starting.trained_text(self.policies[0].module))
        if self.hooks.plays:
            self.screened = self.rollouts.screen(self.policies[0].module)
            self.pool = choose_pool(self.screened, self.params.pool)
        if state := record.newest(self.ctx.scratch):
            self.record = record.read(state)
            self._resume(state)
        else:
            self.validate(0)

    # One step, top-down.

    def step(self) -> None:
        """Play, judge, learn, write down."""
        from transformers import set_seed

        number, self.now = self.record.step, Figures()
        set_seed(self.ctx.seed_for("step", number) % 2**31)
        rows = self.rows(number)
        with fitting.memory("rl", self.params, f"{self.params.groups * self.params.group_size} conversations (groups x group_size)"):
            batch = self.judged(number, rows)
            self.moved.clear()
            if not batch.mask.any():
                self._compare_idle(rows)
            for part in self.minibatches(number, batch):
                self.update(batch, part)
        self.close(number + 1)

    def rows(self, step: int) -> list[Row]:
        """The step's rows: conversations that are played now, and those that the method has in store."""
        rows = self.fresh_rows(step) if self.hooks.plays else []
        first = 1 + max((row.group for row in rows), default=-1)
        rows += [replace(row, group=first + row.group) for row in self.hooks.stored_rows(step, self.others, self.tokenizer)]
        if not rows:
            raise StageFailed(f"rl: step {step + 1} has no rows: the method plays nothing and its `stored_rows` gave none.")
        return rows

    def fresh_rows(self, step: int) -> list[Row]:
        """Play a step's problems; each conversation with its reward, its group, and whether it trains."""
        hooks, size = self.hooks, self.params.group_size
        seed = self.ctx.seed_for("problems")
        problems = hooks.next_problems(step, self.params.groups, self.pool, self.record.groups(), seed)
        if len(problems) != self.params.groups or any(problem.split != "train" for problem in problems):
            splits = sorted({problem.split for problem in problems})
            raise StageFailed(
                f"rl: the method chose {len(problems)} problems of the splits {splits} for step {step + 1}; expected: groups = "
                f"{self.params.groups} of the split train."
            )
        jobs = [(problems[trial // size], trial) for trial in range(size * len(problems))]
        played = hooks.converse(step, jobs, size, self.play("rollout", step))
        self.now = Figures.of(step, played, hooks.reward_terms(played, self.reward_model), hooks)
        return [
            Row(
                turns=one.talk.turns,
                reward=reward,
                turn_rewards=hooks.turn_rewards(one.talk, reward) if one.talk.turns else (),
                group=one.group,
                policy=one.policy,
                episode=one.episode,
                trains=counts and self.now.live[one.group],
                talk=one.talk,
            )
            for one, reward, counts in zip(played, self.now.rewards, self.now.counts, strict=True)
        ]

    def judged(self, step: int, rows: Sequence[Row]) -> Batch:
        """The rows as tensors, with what critic and reference say of them, and the method's advantages for those that train."""
        import torch

        batch = collate(rows, int(self.tokenizer.pad_token_id or 0), step, self.params.steps, self.record.lines)
        with torch.no_grad():
            there = batch.to(self.ctx.device)
            if self.hooks.reference:
                with reference_of(self.policies[0].module, self.reference) as reference:
                    batch = replace(batch, ref_logp=self.scored(reference, there, None).logp.cpu())
            if self.params.importance_cap:
                batch = mismatch.corrected(batch, self._of_owners(there).cpu(), self.params.importance_cap)
            if self.critic:
                with self.autocast():
                    found = values(self.critic.module, there.ids, there.present, there.mask, self.lines)
                batch = replace(batch, values=found.cpu())
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

    def minibatches(self, step: int, batch: Batch) -> Iterator[list[Tensor]]:
        """For each optimiser step its rows, in random order: units that stay together, rows or whole groups."""
        import torch

        noise = torch.Generator().manual_seed(self.ctx.seed_for("step", step) % 2**31)
        together = units(batch.groups.cpu(), self.hooks.whole_groups)
        for _ in range(self.hooks.epochs):
            order = [together[index] for index in torch.randperm(len(together), generator=noise).tolist()]
            yield from parts(order, self.hooks.minibatches)

    def update(self, batch: Batch, part: Sequence[Tensor]) -> None:
        """One optimiser step of every policy that has rows in this part of the batch, and of the critic."""
        import torch

        learned = False
        owners = batch.policies.cpu()
        for number, policy in enumerate(self.policies):
            mine = [unit[owners[unit] == number] for unit in part]
            mine = [unit for unit in mine if len(unit)]
            if not mine:
                continue
            whole = batch.take(torch.cat(mine))
            whole = replace(whole, divisor=self.hooks.divisor(whole).clamp(min=1))
            learned = learned or bool(whole.mask.any())
            total, apart = 0.0, Mismatch() if number not in self.moved else None
            for rows in slices(torch.arange(len(whole.rows)).split([len(unit) for unit in mine]), whole, self.lines):
                loss = self.loss(policy.module, whole.take(rows), apart)
                loss.backward()
                total += float(loss)
            if apart is not None:
                self._check_mismatch(apart, policy.module, whole)
            self.moved.add(number)
            self._step(policy, "policy", total, whole)
        if self.critic and learned:
            if all(weight.grad is None for weight in self.critic.module.parameters()):
                raise StageFailed("rl: the method has a critic, but its `loss_terms` give it no gradient, so it would learn nothing.")
            self._step(self.critic, "critic", 0.0, batch)

    def _step(self, learner: Learner, name: str, loss: float, batch: Batch) -> None:
        """Move a learner by its gradients. StageFailed, and the last saved state stays, when these or the loss are not finite."""
        norm = learner.clip()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            state = record.newest(self.ctx.scratch)
            kept = f"The state after step {state.name} is kept ({state})." if state else "No state was saved."
            raise StageFailed(
                f"rl: step {self.record.step + 1} of {self.params.steps}: the loss is {loss:g}, the norm of the {name}'s gradient "
                f"{norm:g}. {named(batch)} {kept} Lower lr ({self.params.lr:g}) or max_grad_norm ({self.params.max_grad_norm:g})."
            )
        learner.update()

    def loss(self, model: Any, batch: Batch, apart: Mismatch | None = None) -> Tensor:
        """A slice's part of an optimiser step's loss: the method's token losses over its divisor, and its own terms. apart: counts how
        far the model's log-probabilities are from the engine's, while it is still the model that played the rows."""
        import torch

        if not batch.mask.any():  # no group trains: a step of zero gradient
            return sum((weight.sum() for weight in model.parameters() if weight.requires_grad), torch.zeros(())) * 0.0
        now = self.scored(model, batch, self.critic)
        if apart is not None:
            played = mismatch.evaluated(model, batch, self.params.temperature) if mismatch.drops(model) else now.logp
            apart.add(mismatch.apart(played, batch), mismatch.highest_mean(self.params))
        total = batch.mean(self.hooks.token_loss(now, batch) * batch.correction)
        for name, term in self.hooks.loss_terms(now, batch).items():
            total = total + term
            self.now.losses[name] += float(term) / (self.hooks.epochs * self.hooks.minibatches)
        self.now.entropy += float(now.entropy.sum())
        self.now.tokens += int(batch.mask.sum())
        return total

    def scored(self, model: Any, batch: Batch, critic: Learner | None) -> Scored:
        """What a model, and a critic, say of the trained tokens."""
        with self.autocast():
            where = (batch.ids, batch.present, batch.mask)
            logp, entropy = score(model, *where, self.params.temperature, self.hooks.entropy_gradient, self.lines)
            return Scored(logp, entropy, values(critic.module, *where, self.lines) if critic else None)

    def close(self, step: int) -> None:
        """Write the step's line; validate and save where it is due; see whether the entropy alarm ends the run."""
        line = self.now.line()
        self._check_trained(step, line)
        alarm = self.record.add(line, self.now.groups, self.params.entropy_floor)
        for name, value in line.items():
            self.ctx.log(f"rl/{name}", value, step)
        self.ctx.progress(step, self.params.steps, f"steps, reward {line['reward']:.2f}" if self.now.played else "steps")
        self.record.stopped = alarm and self.params.entropy_stop
        if self.record.stopped or step % self.params.validate_every == 0 or step == self.params.steps:
            self.validate(step)
            self._save(step)

    # Its parts.

    def autocast(self) -> Any:
        """In which scoring computes."""
        return fitting.autocast(self.ctx.device, self.params.dtype)

    def play(self, *names: object, temperature: float | None = None) -> Play:
        """As a method plays: play(policy, jobs)."""

        def with_policy(number: int, jobs: Sequence[Job]) -> list[Any]:
            key = (*names, number) if number else names
            return self.rollouts.play(self.policies[number].module, jobs, *key, temperature=temperature)

        return with_policy

    def validate(self, step: int) -> None:
        """Sampled pass^1 on the validation split, by family; a new best checkpoint is written to the scratch folder."""
        play = self.play("validation", temperature=self.params.validation_temperature)
        result = self.rollouts.validate(step, play, self.hooks.examine)
        self.ctx.log("rl/validation", result.rate, step)
        if self.record.validated(result, self.params.max_family_fall):
            finishes = type(self.hooks).finish is not Hooks.finish
            with record.staged(self.ctx.scratch / "best" / str(step)) as folder:
                for number, policy in enumerate(self.policies):
                    wide = self.params.dtype == "float32" or adapters.has_adapter(policy.module)  # an adapter trains in float32
                    changed = finishes or not wide
                    model = copy.deepcopy(policy.module) if changed else policy.module  # training may go on with the policy itself
                    if changed:
                        fitting.widen(model)
                    names = (f"policy_{number}", f"adapter_{number}") if number else ("model", "adapter")
                    self.begun.keep(self.hooks.finish(model), folder / names[0], folder / names[1], may_change=changed)

    def _of_owners(self, batch: Batch) -> Tensor:
        """Log-probabilities (n, t) of every row's tokens by the policy that played it."""
        found = batch.engine_logp
        for number, policy in enumerate(self.policies):
            found = self.scored(policy.module, batch, None).logp.where((batch.policies == number)[:, None], found)
        return found

    def _check_mismatch(self, apart: Mismatch, model: Any, batch: Batch) -> None:
        """Stop before an update that would learn from what another model, or another prompt, has played."""
        self.now.mismatch.join(apart)
        where = f"rl: step {self.record.step + 1} of {self.params.steps}"
        bos = self.tokenizer.bos_token_id
        mismatch.check(apart, mismatch.highest_mean(self.params), model, batch, self.params.temperature, bos, where)

    def _compare_idle(self, rows: Sequence[Row]) -> None:
        """Of a step in which no group trains some conversations are compared: a wrong adapter may be why all of them failed."""
        for number, policy in enumerate(self.policies):
            some = [replace(row, trains=True) for row in rows if row.talk and row.turns and row.policy == number][:IDLE]
            if some:
                batch = collate(some, int(self.tokenizer.pad_token_id or 0), 0, 1, ()).to(self.ctx.device)
                apart = Mismatch()
                with self.autocast():
                    logp = mismatch.evaluated(policy.module, batch, self.params.temperature)
                apart.add(mismatch.apart(logp, batch), mismatch.highest_mean(self.params))
                self._check_mismatch(apart, policy.module, batch)

    def _check_trained(self, step: int, line: Mapping[str, float]) -> None:
        """Stop when too few steps can still have a gradient: the rest of the run would be for nothing."""
        params = self.params
        idle = sum(not one["tokens"] for one in (*self.record.lines, line))
        if params.steps - idle < params.min_trained * params.steps:
            raise StageFailed(
                f"rl: in {idle} of the first {step} steps no group trained, and of all {params.steps} a share of min_trained = "
                f"{params.min_trained:g} must: the {params.group_size} conversations of a problem all ended alike, mostly "
                f"{'solved' if line.get('outcome', 0) > 0.5 else 'unsolved'}. Train longer before (sft), play more of a problem "
                "(group_size), or with more variety (temperature)."
            )

    def _learners(self) -> list[Learner]:
        return [*self.policies, *([self.critic] if self.critic else [])]

    def _save(self, step: int) -> None:
        import torch

        folder = record.fresh(self.ctx.scratch / "staging")
        torch.save([learner.state() for learner in self._learners()], folder / "learners.pt")
        record.keep(self.record, folder, self.ctx.scratch, step)

    def _resume(self, state: Any) -> None:
        import torch

        found = torch.load(state / "learners.pt", map_location=self.ctx.device, weights_only=True)
        for learner, one in zip(self._learners(), found, strict=True):
            learner.resume(one)
