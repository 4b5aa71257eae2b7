"""What one step is told of afterwards: its conversations with their rewards, its groups, its losses, and the line of them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tasks.checkpoints.agreement import Mismatch
from tasks.contract.params import StageFailed
from tasks.contract.trajectory import PARTIES, Trajectory
from tasks.rl.core.hooks import Hooks, Played
from tasks.rl.core.pool import Group
from tasks.training import distributed


def about_agent(talk: Trajectory) -> bool:
    """Whether a conversation says something about the agent (law 6)."""
    assert talk.outcome is not None  # play grades every conversation
    return talk.outcome.about_agent


def outcome_of(talk: Trajectory) -> float:
    """A conversation's raw outcome: 0 or 1, or a real number where the world grades so."""
    assert talk.outcome is not None
    return talk.outcome.reward


@dataclass
class Figures:
    """played: the conversations, in order, with the terms of their rewards. counts: whether each says something about the agent.
    live: number of a group -> whether it trains. entropy: summed over the trained tokens.
    mismatch: between engine and trainer. losses: by a term's name."""

    played: Sequence[Played] = ()
    terms: Sequence[Mapping[str, float]] = ()
    counts: Sequence[bool] = ()
    rewards: Sequence[float] = ()
    groups: list[Group] = field(default_factory=list)
    live: dict[int, bool] = field(default_factory=dict)
    entropy: float = 0.0
    tokens: int = 0
    mismatch: Mismatch = field(default_factory=Mismatch)
    losses: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    @classmethod
    def of(cls, step: int, played: Sequence[Played], terms: Sequence[Mapping[str, float]], hooks: Hooks) -> Figures:
        """Reward the conversations, gather those that count into groups, and ask the method which of them train."""
        counts = [bool(one.talk.turns) and about_agent(one.talk) for one in played]
        rewards = [_finite(hooks.reward(outcome_of(one.talk), also), one, also) for one, also in zip(played, terms, strict=True)]
        found = cls(played, terms, counts, rewards)
        for number in dict.fromkeys(one.group for one in played):
            members = [index for index, one in enumerate(played) if one.group == number]
            problem = played[members[0]].talk.problem
            members = [index for index in members if counts[index]]
            outcomes = tuple(outcome_of(played[index].talk) for index in members)
            group = Group(step, problem.problem_id, problem.family, outcomes, tuple(rewards[index] for index in members))
            found.groups.append(group)
            found.live[number] = len(members) > 1 and hooks.keep(group)
        return found

    def join_processes(self) -> None:
        """Add up what every process has trained on; each has all of it then."""
        found = distributed.gathered((self.entropy, self.tokens, dict(self.losses)))
        self.entropy, self.tokens = sum(entropy for entropy, _, _ in found), sum(tokens for _, tokens, _ in found)
        names = {name for _, _, losses in found for name in losses}
        self.losses.update({name: sum(losses.get(name, 0.0) for _, _, losses in found) for name in names})

    def line(self) -> dict[str, float]:
        """Its line in `curves.csv`; means are over the conversations that count."""
        chosen = [index for index, counts in enumerate(self.counts) if counts]
        terms: Counter[str] = Counter()
        for index in chosen:
            terms.update(self.terms[index])
        share = max(1, len(chosen))
        blamed = Counter(one.talk.outcome.blame for one in self.played if one.talk.outcome)
        of_play = {
            "outcome": sum(outcome_of(self.played[index].talk) for index in chosen) / share,
            "reward": sum(self.rewards[index] for index in chosen) / share,
            **{f"term_{name}": terms[name] / share for name in sorted(terms)},
        }
        return {
            **(of_play if self.played else {}),
            **{f"loss_{name}": self.losses[name] for name in sorted(self.losses)},
            "entropy": self.entropy / max(1, self.tokens),
            "live_groups": sum(self.live.values()),
            "dropped_groups": len(self.live) - sum(self.live.values()),
            "left_out": len(self.counts) - len(chosen),
            **{f"lost_by_{party}": blamed[party] for party in PARTIES},
            "tokens": self.tokens,
            **self.mismatch.line(),
        }


def _finite(reward: float, played: Played, terms: Mapping[str, float]) -> float:
    if math.isfinite(reward):
        return reward
    raise StageFailed(
        f"rl: the reward of problem {played.talk.problem.problem_id}, trial {played.talk.trial} is {reward}, made of its outcome and "
        f"{dict(terms)}. A reward is a finite number."
    )
