"""The problems that a run trains on: screened by play, per family, so that no family falls out because it is hard."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.contract.problem import Problem

GUARDS = 4
"""At most one in 4 of a family's places goes to problems that were always solved, and one in 4 to problems never solved. They
rarely give a gradient, but a family whose problems are all of that kind must not fall out. Ours."""
REST = 3
"""A problem whose group agreed in its outcomes waits as long as this many more turns would have taken: four of eight groups
agreed when it did not; ours."""


@dataclass(frozen=True)
class Screened:
    """A problem of the training pool. solved: how many of the `trials` screening conversations reached its goal; where outcomes are
    real numbers, their sum. apart: whether outcomes differ, where they are real numbers; None: `solved` tells it."""

    problem: Problem
    solved: float
    trials: int
    apart: bool | None = None

    @property
    def difficulty(self) -> str:
        """never, sometimes or always: never and always are alike in all trials, by nothing or by something brought."""
        apart = 0 < self.solved < self.trials if self.apart is None else self.apart
        return "sometimes" if apart else "always" if self.solved > 0 else "never"


@dataclass(frozen=True)
class Group:
    """The conversations of one problem in one step that count (law 6: those that failed by the human's or a tool's fault do
    not).

    outcomes: raw outcomes, 0 or 1, or real numbers where the world grades so. rewards: what the method trains on, outcome and terms.
    """

    step: int
    problem_id: str
    family: str
    outcomes: tuple[float, ...]
    rewards: tuple[float, ...]


def choose_pool(screened: Sequence[Screened], size: int) -> list[Screened]:
    """At most `size` problems, at most an equal share a family: those of medium difficulty (solved sometimes), then a few
    always solved (they guard what is known) and a few never solved.

    Screening over all families at once would drop the never-solved refusals and keep the writes: acting would be rewarded, and
    refusing unlearned (measured: refusals fell from 0.52 to 0.1).
    """
    families = sorted({item.problem.family for item in screened})
    share = -(-size // max(1, len(families)))
    guards = max(1, share // GUARDS)
    pool: list[Screened] = []
    for family in families:
        mine = [item for item in screened if item.problem.family == family]
        medium = [item for item in mine if item.difficulty == "sometimes"]
        always = [item for item in mine if item.difficulty == "always"][:guards]
        never = [item for item in mine if item.difficulty == "never"][:guards]
        pool += (medium + always + never)[:share]
    return pool


def in_turn(count: int, pool: Sequence[Screened], history: Sequence[Group], seed: int) -> list[Problem]:
    """The next `count` problems: whichever were played least, families spread evenly over a round.

    A group whose outcomes agreed counts as 1 + REST, so that its problem waits: conversations go where there is something to
    learn. Without such groups every problem comes once a round.
    """
    played: Counter[str] = Counter()
    for group in history:
        played[group.problem_id] += 1 if has_spread(group) else 1 + REST
    places = []
    for family in sorted({item.problem.family for item in pool}):
        line = [item.problem for item in pool if item.problem.family == family]
        random.Random(f"{seed}-{family}").shuffle(line)
        places += [(played[problem.problem_id], (index + 0.5) / len(line), family, problem) for index, problem in enumerate(line)]
    walk = [problem for _, _, _, problem in sorted(places, key=lambda place: place[:3])]
    return [walk[turn % len(walk)] for turn in range(count)]


def difficulty(screened: Sequence[Screened]) -> dict[str, dict[str, int]]:
    """Per family: how many problems were solved never, sometimes, always."""
    table: dict[str, Counter[str]] = {}
    for item in screened:
        table.setdefault(item.problem.family, Counter())[item.difficulty] += 1
    return {family: dict(sorted(table[family].items())) for family in sorted(table)}


def has_spread(group: Group) -> bool:
    """Whether the raw outcomes of a group differ. Shaped rewards must not bring a group without spread to life."""
    return spread(group.outcomes)


def spread(values: Sequence[float]) -> bool:
    """Whether real numbers differ by more than rounding."""
    return len(values) > 1 and max(values) - min(values) > 1e-6
