"""What a method of this room fills in; the loop around it belongs to the room.

Legend: n conversations of a step, g groups, (b, t) a slice of b conversations and t completion tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tasks.worlds import Problem, Trajectory

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Screened:
    """A problem of the training pool. solved: how many of the `trials` screening conversations reached its goal."""

    problem: Problem
    solved: int
    trials: int


@dataclass(frozen=True)
class Group:
    """The conversations of one problem in one step that count (law 6: those that failed by the human's or a tool's fault do
    not).

    outcomes: raw outcomes, 0 or 1. rewards: what the method trains on, outcome plus its own terms.
    """

    step: int
    problem_id: str
    family: str
    outcomes: tuple[int, ...]
    rewards: tuple[float, ...]


class Hooks(Protocol):
    """The five places where papers differ. None of them keeps state: what has happened so far arrives in `history`."""

    def next_problems(self, step: int, count: int, pool: Sequence[Screened], history: Sequence[Group], seed: int) -> list[Problem]:
        """Which `count` problems to play in this step, one group each."""
        ...

    def shape(self, played: Trajectory) -> dict[str, float]:
        """Named reward terms added to the outcome; each is logged apart. Empty: the outcome alone."""
        ...

    def keep(self, group: Group) -> bool:
        """Whether the group trains. Dropped groups are counted; their tokens are not scored."""
        ...

    def advantages(self, rewards: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
        """rewards (n,) and the number of each one's group (n,) -> advantages (n,)."""
        ...

    def token_loss(self, logp: torch.Tensor, old_logp: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Loss of each token (b, t); the room sums it over `mask` and divides by the step's number of trained tokens.

        logp: of the present policy, with gradient; old_logp: as recorded when the token was sampled; advantages (b, 1).
        """
        ...
