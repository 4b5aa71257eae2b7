"""Conversations of the present policy in one world: for a step, for screening the training problems, for the validation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tasks.contract.client import Client
from tasks.contract.context import Context
from tasks.contract.early_ends import counted, lost_by, too_many
from tasks.contract.params import StageFailed
from tasks.contract.trajectory import Trajectory
from tasks.rl.core.figures import about_agent, outcome_of
from tasks.rl.core.hooks import Job, Play
from tasks.rl.core.params import SCREEN_SHARD, Loop
from tasks.rl.core.pool import Screened, spread
from tasks.rl.core.record import Validation
from tasks.worlds.api.play import play
from tasks.worlds.api.problem_source import Problems

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tasks.worlds.api.runtime import World


class Rollouts:
    """Plays in one world, against one simulated human."""

    def __init__(
        self, ctx: Context, params: Loop, world: World, problems: Problems, human: Client, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.ctx, self.params, self.world, self.problems = ctx, params, world, problems
        self.human, self.tokenizer = human, tokenizer
        self.lost: Counter[str] = Counter()
        """Of the screening's conversations: technical reason -> how many were lost by it."""

    def play(self, model: PreTrainedModel, jobs: Sequence[Job], *names: object, temperature: float | None = None) -> list[Trajectory]:
        """Play with `model`, sampled; `names` key the noise. The model's mode is as it was afterwards."""
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
        return played

    def screen(self, model: PreTrainedModel) -> list[Screened]:
        """Play training problems a few times each, to know their difficulty."""
        params, trials = self.params, self.params.screen_trials
        problems = self.problems.up_to(self.world, "train", params.screen_problems, self.ctx.seed_for("pool"))
        few = f", all that are proven ({params.screen_problems} wanted)" if len(problems) < params.screen_problems else ""

        def work(indices: Sequence[int]) -> dict[str, Any]:
            jobs = [(problems[index], trial) for index in indices for trial in range(trials)]
            played = self.play(model, jobs, "screen")
            won = [outcome_of(talk) for talk in played]
            each = [won[at : at + trials] for at in range(0, len(won), trials)]
            solved, apart = [sum(one) for one in each], [spread(one) for one in each]
            return {"solved": solved, "apart": apart, "lost": counted(lost_by(talk, params.max_turn_tokens) for talk in played)}

        solved: list[float] = []
        apart: list[bool] = []
        for shard in self.ctx.shards("screen", work, list(range(len(problems))), SCREEN_SHARD):
            solved += shard["solved"]
            apart += shard["apart"]
            self.lost.update(shard["lost"])
            self.ctx.progress(len(solved), len(problems), f"problems screened{few}")
        self._check_lost("screening", self.lost, len(problems) * trials)
        if not problems:
            raise StageFailed(f"rl: world {self.world.name} gave no training problem, so there is nothing to play (screen_problems).")
        return [Screened(problem, won, trials, differ) for problem, won, differ in zip(problems, solved, apart, strict=True)]

    def validate(self, step: int, play: Play, examine: Any) -> Validation:
        """The mean outcome on the validation split, sampled, by family. examine: the method's way to play (`Hooks.examine`)."""
        seed = self.ctx.seed_for("validation")
        held_out = self.problems.up_to(self.world, "validation", self.params.validation_problems, seed)
        played = examine([(problem, 0) for problem in held_out], play)
        self._check_lost("validation", counted(lost_by(talk, self.params.max_turn_tokens) for talk in played), len(played))
        counts = [talk for talk in played if about_agent(talk)]
        if not counts:
            raise StageFailed(
                f"rl: no validation conversation in {self.world.name} says anything about the agent: human or tools failed."
            )
        tried = Counter(talk.problem.family for talk in counts)
        won = {family: sum(outcome_of(talk) for talk in counts if talk.problem.family == family) for family in tried}
        return Validation(step, {family: (won[family], tried[family]) for family in sorted(tried)})

    def _check_lost(self, what: str, lost: Mapping[str, int], total: int) -> None:
        if wrong := too_many(lost, total, self.params.max_lost):
            raise StageFailed(f"rl: {what} in {self.world.name}: {wrong}")
