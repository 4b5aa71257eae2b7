"""The room's loop: screen problems by play, then sample groups of conversations, judge them, take a step, validate, keep
the best.

A checkpoint is reinforced in one world. Every conversation goes through `tasks.worlds.api.play`, the reward is the world's own
outcome, and the best checkpoint is the one with the highest sampled pass^1 on the validation split, as long as no family
fell too far.

1. The noise of step s is keyed by s, and global generators are seeded anew in each step, so that a run that was killed
   continues from its last saved state and ends in the same bytes.
2. Conversations that failed by the human's or a tool's fault are left out, groups whose raw outcomes agree are dropped;
   both are counted.

Cost a step: groups x group_size conversations, one forward and backward pass over the tokens of the groups that are kept.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contract.client import Client
from tasks.contract.context import Context
from tasks.contract.early_ends import counted, lost_by, too_many
from tasks.contract.params import BadInput, StageFailed, nearest
from tasks.contract.problem import Problem
from tasks.contract.trajectory import PARTIES, Trajectory
from tasks.rl import Inputs
from tasks.rl.core import record
from tasks.rl.core.hooks import Group, Hooks, Screened, as_it_is
from tasks.rl.core.params import LoopParams
from tasks.rl.core.pool import choose_pool
from tasks.rl.core.record import Record, Validation
from tasks.worlds.api.play import play

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import GRPOTrainer

    from tasks.worlds.api.runtime import World

SCREEN_SHARD = 32
"""Problems of one screening shard: found again after a kill."""


def reinforce(inputs: Inputs, params: LoopParams, hooks: Hooks, ctx: Context) -> dict[str, Any]:
    """Reinforce `inputs.sft` in `inputs.world`; leaves model/ and curves.csv in `ctx.out` and returns figures."""
    from transformers import set_seed

    from tasks.checkpoints import folders
    from tasks.worlds.api.runtime import load

    known = sorted(path.parent.name for path in inputs.worlds.glob("*/world.json"))
    if inputs.world not in known:
        raise BadInput(f"rl: no world {inputs.world!r}.{nearest(inputs.world, known)} Frozen worlds: {', '.join(known)}.")
    world = load(inputs.worlds / inputs.world)
    model, tokenizer = folders.load(inputs.sft / "model", ctx.device)
    set_seed(ctx.seed_for("prepare") % 2**31)
    model = hooks.prepare(model)
    folders.trainable(model)
    loop = Loop(ctx, params, hooks, world, ctx.human(inputs.world), tokenizer)
    loop.screen(model)
    state = record.newest(ctx.scratch)
    if state is None:
        loop.validate(0, model)
    else:
        loop.record = record.read(state)
    if loop.record.step < params.steps and not loop.record.stopped:
        _train(loop, model, state)
    figures = record.publish(loop.record, ctx.scratch, ctx.out, loop.screened, params.max_family_fall)
    return {**figures, "screening_lost_by": dict(sorted(loop.lost.items()))}


def _train(loop: Loop, model: PreTrainedModel, state: Path | None) -> None:
    from tasks.rl.core.trainer import build_trainer

    ctx, staging = loop.ctx, record.fresh(loop.ctx.scratch / "staging")
    seed = ctx.seed_for("trainer")
    with warnings.catch_warnings():
        # TRL 1.16 still speaks of gradient checkpointing, which transformers 5.23 renamed; neither is ours to change.
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)
        trainer = build_trainer(loop, model, loop.tokenizer, loop.params, staging, ctx.device, seed)
        trainer.train(resume_from_checkpoint=str(state) if state else None)


@dataclass
class _Step:
    """The conversations of one step: in order, with their reward terms, the group each belongs to, and whether it counts."""

    played: list[Trajectory]
    terms: list[dict[str, float]]
    counts: list[bool]
    groups: list[Group] = field(default_factory=list)
    live: list[bool] = field(default_factory=list)
    entropy: float = 0.0
    tokens: int = 0

    def reward(self, index: int) -> float:
        outcome = self.played[index].outcome
        assert outcome is not None  # play grades every conversation
        return float(outcome.reward + sum(self.terms[index].values()))


class Loop:
    """The room as the trainer sees it (`tasks.rl.core.trainer.Room`)."""

    def __init__(
        self,
        ctx: Context,
        params: LoopParams,
        hooks: Hooks,
        world: World,
        human: Client,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self.ctx, self.params, self.hooks = ctx, params, hooks
        self.world, self.human, self.tokenizer = world, human, tokenizer
        self.screened: list[Screened] = []
        self.pool: list[Screened] = []
        self.lost: Counter[str] = Counter()
        self.record = Record()
        self._step = _Step([], [], [])
        self._held_out = world.problems("validation", params.validation_problems, ctx.seed_for("validation"))

    def _play(
        self, model: PreTrainedModel, jobs: Sequence[tuple[Problem, int]], *names: object, temperature: float | None = None
    ) -> list[Trajectory]:
        """Play with the present policy, sampled; `names` key the noise. The model's mode is as it was afterwards."""
        params, training = self.params, model.training
        agent = self.ctx.agent(
            self.world.name,
            name="policy",
            checkpoint=(model.eval(), self.tokenizer),
            rows=min(params.rows, len(jobs)),
            temperature=params.temperature if temperature is None else temperature,
            max_turn_tokens=params.max_turn_tokens,
            max_episode_tokens=params.max_episode_tokens,
        )
        seed = self.ctx.seed_for(*names)
        played = play(self.world, jobs, agent, self.human, seed=seed, max_steps=params.max_turns)
        model.train(training)
        if any(talk.rewritten for talk in played):
            raise StageFailed(
                "rl: agents.method names a way of acting that writes the prompt anew within a conversation, whose tokens are then no "
                "one sequence to train on. Allowed: ways that go on from what was said (react)."
            )
        return played

    def screen(self, model: PreTrainedModel) -> None:
        """Play training problems a few times each and choose the pool."""
        params = self.params
        problems = self.world.problems("train", params.screen_problems, self.ctx.seed_for("pool"))

        def work(indices: Sequence[int]) -> dict[str, Any]:
            jobs = [(problems[index], trial) for index in indices for trial in range(params.screen_trials)]
            played = self._play(model, jobs, "screen")
            won = [_won(talk) for talk in played]
            solved = [sum(won[at : at + params.screen_trials]) for at in range(0, len(won), params.screen_trials)]
            return {"solved": solved, "lost": counted(lost_by(talk, params.max_turn_tokens) for talk in played)}

        solved: list[int] = []
        for shard in self.ctx.shards("screen", work, list(range(len(problems))), SCREEN_SHARD):
            solved += shard["solved"]
            self.lost.update(shard["lost"])
            self.ctx.progress(len(solved), len(problems), "problems screened")
        self._check_lost("screening", self.lost, len(problems) * params.screen_trials)
        self.screened = [Screened(problem, won, params.screen_trials) for problem, won in zip(problems, solved, strict=True)]
        self.pool = choose_pool(self.screened, params.pool)
        if not self.pool:
            raise StageFailed(f"rl: world {self.world.name} gave no training problem, so there is nothing to play (screen_problems).")

    def _check_lost(self, what: str, lost: Mapping[str, int], total: int) -> None:
        if wrong := too_many(lost, total, self.params.max_lost):
            raise StageFailed(f"rl: {what} in {self.world.name}: {wrong}")

    def roll(self, prompts: list[Any], trainer: GRPOTrainer) -> dict[str, list[Any]]:
        """TRL's rollout_func. What the prompts say is not used: the step's problems are the method's choice."""
        from transformers import set_seed

        step, size = int(trainer.state.global_step), self.params.group_size
        set_seed(self.ctx.seed_for("step", step) % 2**31)
        seed = self.ctx.seed_for("problems")
        problems = self.hooks.next_problems(step, len(prompts) // size, self.pool, self.record.groups(), seed)
        jobs = [(problems[trial // size], trial) for trial in range(len(prompts))]
        played = self._play(trainer.accelerator.unwrap_model(trainer.model), jobs, "rollout", step)
        counts = [bool(talk.turns) and _about_agent(talk) for talk in played]
        self._step = _Step(played, [self.hooks.shape(talk) for talk in played], counts)
        self._group(step)
        columns = _columns(played, int(self.tokenizer.pad_token_id or 0))
        rewards = [self._step.reward(index) if counts[index] else None for index in range(len(played))]
        return {**columns, "reward": rewards}

    def _group(self, step: int) -> None:
        """Gather the conversations that count into groups and ask the method which of them train."""
        now, size = self._step, self.params.group_size
        for start in range(0, len(now.played), size):
            members = [index for index in range(start, start + size) if now.counts[index]]
            problem = now.played[start].problem
            outcomes = tuple(_won(now.played[index]) for index in members)
            rewards = tuple(now.reward(index) for index in members)
            group = Group(step, problem.problem_id, problem.family, outcomes, rewards)
            now.groups.append(group)
            now.live.append(len(members) > 1 and self.hooks.keep(group))

    def judge(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The method's advantages for what trains; all other conversations lose their mask."""
        import torch

        now, device = self._step, batch["completion_ids"].device
        numbers = torch.arange(len(now.played)) // self.params.group_size
        trains = torch.tensor(now.counts) & torch.tensor(now.live)[numbers]
        rewards = torch.tensor([now.reward(index) for index in range(len(now.played))])
        advantages = torch.zeros(len(now.played))
        if trains.any():
            advantages[trains] = self.hooks.advantages(rewards[trains], numbers[trains])
        batch["advantages"] = advantages.to(device)
        batch["tool_mask"] = batch["tool_mask"] * trains.to(device)[:, None]
        batch["num_items_in_batch"] = (batch["completion_mask"] * batch["tool_mask"]).sum()
        return batch

    def loss(self, model: PreTrainedModel, batch: dict[str, Any]) -> torch.Tensor:
        """The method's token losses over the step's trained tokens."""
        import torch

        from tasks.rl.core.scoring import score

        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        present = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        mask = batch["completion_mask"] * batch["tool_mask"]
        if not mask.any():  # no group trains: a step of zero gradient
            return sum((weight.sum() for weight in model.parameters() if weight.requires_grad), torch.zeros(())) * 0.0
        device = ids.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.params.bf16 and device != "cpu"):
            logp, entropy = score(model, ids, present, mask, self.params.temperature)
        losses = self.hooks.token_loss(logp, batch["sampling_per_token_logps"], batch["advantages"][:, None], mask)
        self._step.entropy += float(entropy.sum())
        self._step.tokens += int(mask.sum())
        total: torch.Tensor = (losses * mask).sum() / batch["num_items_in_batch"].clamp(min=1)
        return total

    def after_step(self, step: int, model: PreTrainedModel) -> tuple[bool, bool]:
        """Write the step's line; validate and save where it is due; say whether the entropy alarm ends the run."""
        line = self._line(step)
        self._check_trained(step, line)
        alarm = self.record.add(line, self._step.groups, self.params.entropy_floor)
        for name, value in line.items():
            self.ctx.log(f"rl/{name}", value, step)
        self.ctx.progress(step, self.params.steps, f"steps, reward {line['reward']:.2f}")
        stop = alarm and self.params.entropy_stop
        self.record.stopped = stop
        due = stop or step % self.params.validate_every == 0 or step == self.params.steps
        if due:
            self.validate(step, model)
        return due, stop

    def _check_trained(self, step: int, line: Mapping[str, float]) -> None:
        """Stop when too few steps can still have a gradient: the rest of the run would be for nothing."""
        params = self.params
        idle = sum(not one["tokens"] for one in (*self.record.lines, line))
        if params.steps - idle < params.min_trained * params.steps:
            raise StageFailed(
                f"rl: in {idle} of the first {step} steps no group trained, and of all {params.steps} a share of min_trained = "
                f"{params.min_trained:g} must: the {params.group_size} conversations of a problem all ended alike, mostly "
                f"{'solved' if line['outcome'] > 0.5 else 'unsolved'}. Train longer before (sft), play more of a problem "
                "(group_size), or with more variety (temperature)."
            )

    def _line(self, step: int) -> dict[str, float]:
        now = self._step
        chosen = [index for index, counts in enumerate(now.counts) if counts]
        terms: Counter[str] = Counter()
        for index in chosen:
            terms.update(now.terms[index])
        share = max(1, len(chosen))
        blamed = Counter(talk.outcome.blame for talk in now.played if talk.outcome)
        return {
            "outcome": sum(_won(now.played[index]) for index in chosen) / share,
            "reward": sum(now.reward(index) for index in chosen) / share,
            **{f"term_{name}": terms[name] / share for name in sorted(terms)},
            "entropy": now.entropy / max(1, now.tokens),
            "live_groups": sum(now.live),
            "dropped_groups": len(now.live) - sum(now.live),
            "left_out": len(now.counts) - len(chosen),
            **{f"lost_by_{party}": blamed[party] for party in PARTIES},
            "tokens": now.tokens,
        }

    def validate(self, step: int, model: PreTrainedModel) -> None:
        """Sampled pass^1 on the validation split, by family; a new best checkpoint is written to the scratch folder."""
        from tasks.checkpoints import folders

        jobs = [(problem, 0) for problem in self._held_out]
        played = self._play(model, jobs, "validation", temperature=self.params.validation_temperature)
        self._check_lost("validation", counted(lost_by(talk, self.params.max_turn_tokens) for talk in played), len(played))
        about_agent = [talk for talk in played if _about_agent(talk)]
        if not about_agent:
            raise StageFailed(
                f"rl: no validation conversation in {self.world.name} says anything about the agent: human or tools failed."
            )
        tried = Counter(talk.problem.family for talk in about_agent)
        won = Counter(talk.problem.family for talk in about_agent if _won(talk))
        families = {family: (won[family], tried[family]) for family in sorted(tried)}
        result = Validation(step, families)
        self.ctx.log("rl/validation", result.rate, step)
        if self.record.validated(result, self.params.max_family_fall):
            with record.staged(self.ctx.scratch / "best" / str(step)) as folder:
                finish = self.hooks.finish
                folders.save(model if finish is as_it_is else finish(copy.deepcopy(model)), self.tokenizer, folder)

    def saved(self, step: int, folder: Path) -> None:
        """Add the record to TRL's state and put both, complete, where the next attempt looks."""
        record.keep(self.record, folder, self.ctx.scratch, step)


def _about_agent(played: Trajectory) -> bool:
    assert played.outcome is not None
    return played.outcome.about_agent


def _won(played: Trajectory) -> int:
    assert played.outcome is not None  # play grades every conversation
    return played.outcome.reward


def _columns(played: Sequence[Trajectory], pad: int) -> dict[str, list[Any]]:
    """TRL's columns. The completion is everything after the first prompt: the model's tokens (env_mask 1) and what it read
    (0).

    A conversation without any turn becomes one padding token that nobody trains.
    """
    columns: dict[str, list[Any]] = {"prompt_ids": [], "completion_ids": [], "logprobs": [], "env_mask": []}
    for talk in played:
        ids: list[int] = []
        logps: list[float] = []
        mask: list[int] = []
        for number, turn in enumerate(talk.turns):
            read = list(turn["prompt_ids"]) if number else []
            ids += [*read, *turn["ids"]]
            logps += [0.0] * len(read) + list(turn["logprobs"])
            mask += [0] * len(read) + [1] * len(turn["ids"])
        columns["prompt_ids"].append(list(talk.turns[0]["prompt_ids"]) if talk.turns else [pad])
        columns["completion_ids"].append(ids or [pad])
        columns["logprobs"].append(logps or [0.0])
        columns["env_mask"].append(mask or [0])
    return columns
