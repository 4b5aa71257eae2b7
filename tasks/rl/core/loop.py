"""The room's loop: screen problems by play, then sample groups of conversations, judge them, take a step (`learning.py`),
validate, keep the best.

A checkpoint is reinforced in one world. Every conversation goes through `tasks.worlds.api.play`, the outcome is the world's own,
and the best checkpoint is the one with the highest sampled pass^1 on the validation split, as long as no family fell too far.
`Training.step` is one step, top-down; what a method changes in it stands in `hooks.py`.

1. The noise of step s is keyed by s, and global generators are seeded anew in each step, so that a run that was killed
   continues from its last saved state and ends in the same bytes.
2. Conversations that failed by the human's or a tool's fault are left out, groups whose raw outcomes agree are dropped;
   both are counted.

Of several processes (`loop.distributed`) the first alone plays, judges and keeps the record, and brings rows and record to the others;
all of them learn from the rows, each from its share. Which parts need every process is said where they are.

Cost a step: groups x group_size conversations, one forward and backward pass over the tokens of the groups that are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tasks.chat.local.format import BY_TURN
from tasks.chat.local.kept import chat_of
from tasks.checkpoints import adapters, memory, starting
from tasks.contract.context import Context
from tasks.contract.params import BadInput, StageFailed, nearest
from tasks.contract.proven import proven
from tasks.rl import Inputs, Loop
from tasks.rl.core import record
from tasks.rl.core.batch import Row
from tasks.rl.core.figures import Figures
from tasks.rl.core.hooks import Hooks, Job, Play
from tasks.rl.core.learning import Learning
from tasks.rl.core.models import Models
from tasks.rl.core.pool import Screened, choose_pool
from tasks.rl.core.record import Record
from tasks.rl.core.reward_model import RewardModel
from tasks.rl.core.rollouts import Rollouts
from tasks.training import distributed, fitting
from tasks.worlds.api.problem_source import Problems


def run(inputs: Inputs, params: Loop, hooks: Hooks, ctx: Context) -> dict[str, Any]:
    """Reinforce `inputs.sft` in `inputs.world`; leaves model/ and curves.csv in `ctx.out` and returns figures; of several processes the
    first one alone does."""
    distributed.join(ctx.device)
    training = Training(inputs, params, hooks, ctx)
    training.start()
    while training.record.step < params.steps and not training.record.stopped:
        training.step()
    if distributed.rank():
        return {}
    figures = record.publish(training.record, ctx.scratch, ctx.out, training.screened, params.max_family_fall)
    return {
        **figures,
        **starting.trained(training.policy),
        "screening_lost_by": dict(sorted(training.rollouts.lost.items())),
    }


class Training:
    """A run: its policies, what has happened, and the step."""

    def __init__(self, inputs: Inputs, params: Loop, hooks: Hooks, ctx: Context) -> None:
        from tasks.worlds.api.frozen import load

        known = sorted(path.parent.name for path in inputs.worlds.glob("*/world.json"))
        if inputs.world not in known:
            raise BadInput(f"rl: no world {inputs.world!r}.{nearest(inputs.world, known)} Frozen worlds: {', '.join(known)}.")
        self.ctx, self.params, self.hooks = ctx, params, hooks
        self.models = Models(inputs, params, hooks, ctx)
        self.others, human, first = inputs.others, ctx.human(inputs.world), not distributed.rank()
        self.reward_model = RewardModel.load(self.others["reward"] / "model", ctx.device) if first and "reward" in self.others else None
        if first:
            adapters.lend(human, self.models.player(0), self.models.under_adapter)
        problems = Problems(proven(inputs.blueprints), "Raise the problems of the step of room generate.")
        self.rollouts = Rollouts(ctx, params, load(inputs.worlds / inputs.world), problems, human, self.models.tokenizer)
        self.screened: list[Screened] = []
        self.pool: list[Screened] = []
        self.record = Record()
        self.now = Figures()

    @property
    def policy(self) -> Any:
        """The first policy's model."""
        return self.models.policies[0].module

    def start(self) -> None:
        """Choose the pool, and go on from the last saved state, or validate the start."""
        self.ctx.progress(0, self.params.steps, starting.trained_text(self.policy))
        if self.hooks.plays and not distributed.rank():
            self.screened = self.rollouts.screen(self.models.player(0))
            self.pool = choose_pool(self.screened, self.params.pool)
        if state := record.newest(self.ctx.scratch):
            self.record = record.read(state)
            self.models.resume(state)
        else:
            self.validate(0)

    # One step, top-down.

    def step(self) -> None:
        """Play, judge, learn, write down."""
        from transformers import set_seed

        number, self.now = self.record.step, Figures()
        set_seed(self.ctx.seed_for("step", number) % 2**31)
        rows = distributed.of_first(lambda: self.rows(number))
        largest = f"{self.params.groups * self.params.group_size} conversations (groups x group_size)"
        with memory.advised("rl", fitting.advice(self.params, largest)):
            Learning(self.models, self.record, self.now).learn(rows)
        self.close(number + 1)

    def rows(self, step: int) -> list[Row]:
        """The step's rows: conversations that are played now, and those that the method has in store."""
        rows = self.fresh_rows(step) if self.hooks.plays else []
        first = 1 + max((row.group for row in rows), default=-1)
        stored = self.hooks.stored_rows(step, self.others, self.models.tokenizer)
        by_turn = chat_of(self.models.tokenizer).form == BY_TURN
        if by_turn and any("first" not in turn for row in stored for turn in row.turns[1:]):
            raise StageFailed(
                "rl: the checkpoint's chat format holds by turn, and a stored row of the method has turns that do not say whether "
                "their prompt is whole. Expected: `first` in each turn, true where its prompt_ids are all that was read before it."
            )
        rows += [replace(row, group=first + row.group) for row in stored]
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

    def close(self, step: int) -> None:
        """Write the step's line; validate and save where it is due; see whether the entropy alarm ends the run."""
        self.record = distributed.of_first(lambda: self._written(step))
        if self.record.stopped or step % self.params.validate_every == 0 or step == self.params.steps:
            self.validate(step)
            self._save(step)

    # Its parts.

    def _written(self, step: int) -> Record:
        """The record with the step's line."""
        line = self.now.line()
        self._check_trained(step, line)
        alarm = self.record.add(line, self.now.groups, self.params.entropy_floor)
        for name, value in line.items():
            self.ctx.log(f"rl/{name}", value, step)
        self.ctx.progress(step, self.params.steps, f"steps, reward {line['reward']:.2f}" if self.now.played else "steps")
        self.record.stopped = alarm and self.params.entropy_stop
        return self.record

    def play(self, *names: object, temperature: float | None = None) -> Play:
        """As a method plays: play(policy, jobs)."""

        def with_policy(number: int, jobs: Sequence[Job]) -> list[Any]:
            key = (*names, number) if number else names
            return self.rollouts.play(self.models.player(number), jobs, *key, temperature=temperature)

        return with_policy

    def validate(self, step: int) -> None:
        """Sampled pass^1 on the validation split, by family; a new best checkpoint is written to the scratch folder."""
        self.record = distributed.of_first(lambda: self._validated(step))

    def _validated(self, step: int) -> Record:
        """The record with a validation."""
        play = self.play("validation", temperature=self.params.validation_temperature)
        result = self.rollouts.validate(step, play, self.hooks.examine)
        self.ctx.log("rl/validation", result.rate, step)
        if self.record.validated(result, self.params.max_family_fall):
            with record.staged(self.ctx.scratch / "best" / str(step)) as folder:
                self.models.keep(folder)
        return self.record

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

    def _save(self, step: int) -> None:
        folder = record.fresh(self.ctx.scratch / "staging")
        self.models.save(folder)
        record.keep(self.record, folder, self.ctx.scratch, step)
