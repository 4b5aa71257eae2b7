"""What a method of this room fills in; the loop around it belongs to the room, and each hook rests in a neutral default.

Legend: n rows of a step (conversations), k turns and t completion tokens of the longest, b rows of a slice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.contract.problem import Problem
from tasks.contract.trajectory import Trajectory
from tasks.rl.core.pool import Group, Screened, has_spread, in_turn

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tasks.rl.core.batch import Batch, Row, Scored
    from tasks.rl.core.reward_model import RewardModel

Job = tuple[Problem, int]
"""A problem and the number of the trial: one conversation to play."""
Play = Callable[[int, Sequence[Job]], list[Trajectory]]
"""play(policy, jobs): that policy plays every job, sampled; the noise of a conversation is keyed by step, policy, problem and trial."""


@dataclass(frozen=True)
class Played:
    """A conversation of a step. group: those with which it is compared. policy: the number of the policy that played it and learns
    from it. episode: what it is a part of, where conversations belong together (a pair, a team's step); -1: it stands alone."""

    talk: Trajectory
    group: int
    policy: int = 0
    episode: int = -1


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """The places where papers differ. None of them keeps state: what has happened so far arrives in `history` and `Batch.lines`.

    A method derives from it and states its difference alone. Its fields are facts that the loop asks for before the first step:

    epochs, minibatches: passes over a step's rows, and optimiser steps of each pass (PPO; MARFT: 5 and 4).
    whole_groups:        the rows of a group stay in one minibatch and slice (pairs of Agent Q's step DPO, of ORPO).
    whole_rows:          so do the turns of a conversation where each is a sequence of its own and all are more than a pass holds
                         (GSPO's ratio of whole conversations).
    policies:            copies of the start checkpoint that learn, each with an optimiser of its own that lasts (CORY, MARFT). The
                         first is validated and is the artifact's `model/`; the others lie beside it as `policy_1/`, ...
    plays:               whether a step plays new conversations; without, nothing is screened and all its rows are stored (Agent Q).
    reference:           whether `Batch.ref_logp` is wanted: of the start checkpoint (KL of two_stage_math, CORY, PPO), or of the step
                         `reference` if this one reads it (direct_rlhf).
    entropy_gradient:    whether `Scored.entropy` carries a gradient (EPO's bonus and penalty); it costs memory.
    """

    epochs: int = 1
    minibatches: int = 1
    whole_groups: bool = False
    whole_rows: bool = False
    policies: int = 1
    plays: bool = True
    reference: bool = False
    entropy_gradient: bool = False

    # What trains.

    def prepare(self, model: PreTrainedModel) -> PreTrainedModel:
        """Which parameters train and how they start: a loaded checkpoint -> the model to train (frozen parts); the loop's own adapter
        (`loop.adapter`) is put on afterwards. Called once for each policy."""
        return model

    def finish(self, model: PreTrainedModel) -> PreTrainedModel:
        """A copy of a trained model -> the checkpoint to keep. An adapter that it wears is kept as `loop.adapter.save`
        says."""
        return model

    def critic(self, model: PreTrainedModel) -> tuple[Module, float] | None:
        """A critic and its learning rate, made from the start checkpoint; None: no critic (PPO of multi_turn_rl, MARFT).

        The module maps ids (b, l), packed to the left, to the value of the state after each of them (b, l); `critic_of` makes one. It
        learns by what `loss_terms` says, is kept for a resume and is no part of the artifact.
        """
        return None

    # What a step trains on.

    def next_problems(self, step: int, count: int, pool: Sequence[Screened], history: Sequence[Group], seed: int) -> list[Problem]:
        """Which `count` problems to play in this step, one group each (MPTS samples by posterior risk). Here: every problem of the pool
        in turn, families spread evenly; one whose group agreed waits."""
        return in_turn(count, pool, history, seed)

    def converse(self, step: int, jobs: Sequence[Job], group_size: int, play: Play) -> list[Played]:
        """Who plays which conversation, in order. jobs: group_size for each problem, one group after another. Here: the first policy
        plays all. CORY's observer plays the problem with the pioneer's answer in it, MARFT's actor the one with the planner's plan."""
        return [Played(talk, index // group_size) for index, talk in enumerate(play(0, jobs))]

    def stored_rows(self, step: int, others: Mapping[str, Path], tokenizer: PreTrainedTokenizerBase) -> Sequence[Row]:
        """Rows that were not played in this step, with the log-probabilities of whoever produced them, added to its own (Agent Q's
        step DPO; `rl.kto`, `rl.orpo`). others: folders of further steps (`Inputs.others`), such as preference pairs. The rows' group
        numbers are theirs alone; their rewards are what `advantages` and `loss_terms` see. In a chat format by turn each of their
        turns says that its prompt is whole (`first`)."""
        return ()

    def reward_terms(self, played: Sequence[Played], model: RewardModel | None) -> list[Mapping[str, float]]:
        """Named, finite terms of each conversation's reward, each logged apart; an empty mapping: the outcome alone. model: of the
        step `reward`, if this one reads it (SALMON, DPA). All of a step together: lengths within a group (two_stage_math), a
        partner's outcome (CORY)."""
        return [{} for _ in played]

    def reward(self, outcome: float, terms: Mapping[str, float]) -> float:
        """The reward of a conversation. outcome: the world's own. Here their sum; SALMON trains on the reward model alone."""
        return float(outcome + sum(terms.values()))

    def turn_rewards(self, talk: Trajectory, reward: float) -> Sequence[float]:
        """The reward of each turn (multi_turn_rl). Here all of it comes with the last."""
        return [0.0] * (len(talk.turns) - 1) + [reward]

    def keep(self, group: Group) -> bool:
        """Whether a group trains; dropped groups are counted and their tokens are not scored. Here: when its raw outcomes differ."""
        return has_spread(group)

    # What it learns.

    def advantages(self, batch: Batch) -> Tensor:
        """The advantage of each row (n,) or of each token (n, t), on the CPU; `batch` holds the rows that train. `Batch.at_turns`
        spreads one a turn (n, k) over tokens: per turn in multi_turn_rl, across agents in MARFT, GFlowNet's log Z over a group."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its advantages are")

    def returns(self, batch: Batch) -> Tensor | None:
        """What the critic's values are trained towards (n, t), for `loss_terms`; `batch` as in `advantages` (PPO)."""
        return None

    def token_loss(self, now: Scored, batch: Batch) -> Tensor:
        """The loss of each token (b, t); the room sums it over `batch.mask` and divides by `divisor`. Here: REINFORCE."""
        return -now.logp * batch.advantages

    def divisor(self, batch: Batch) -> Tensor:
        """By what the summed token losses of an optimiser step's rows are divided: a scalar, or (n, 1) for one a row. Here: the trained
        tokens. `per_row` is GRPO's first form, a constant Dr. GRPO's."""
        return batch.mask.sum()

    def loss_terms(self, now: Scored, batch: Batch) -> Mapping[str, Tensor]:
        """Named scalars added to a slice's loss, each logged (entropy of EPO, KL, the critic's loss of PPO, the pairs of step DPO). A
        slice's part of a mean over the optimiser step's tokens is `batch.mean`; parts of slices add up."""
        return {}

    # What is kept.

    def examine(self, jobs: Sequence[Job], play: Play) -> list[Trajectory]:
        """How the validation's conversations are played, in the order of `jobs`. Here: by the first policy; MARFT's whole team."""
        return play(0, jobs)


def clipped(now: Scored, batch: Batch, low: float, high: float) -> Tensor:
    """The loss of each token (b, t) under a ratio clipped to [1 - low, 1 + high]: -min(ratio A, clip(ratio) A), as in GRPO and PPO;
    the ratio of masked tokens is 1."""
    import torch

    ratio = torch.exp((now.logp - batch.old_logp) * batch.mask)
    return -torch.min(ratio * batch.advantages, ratio.clamp(1 - low, 1 + high) * batch.advantages)
