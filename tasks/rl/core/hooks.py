"""What a method of this room fills in; the loop around it belongs to the room.

Legend: n conversations of a step, g groups, (b, t) a slice of b conversations and t completion tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.contract.problem import Problem
from tasks.contract.trajectory import Trajectory

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


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


def as_it_is(model: PreTrainedModel) -> PreTrainedModel:
    """All parameters train and start where the SFT model left them; what is kept is the trained model itself."""
    return model


@dataclass(frozen=True)
class Hooks:
    """The places where papers differ. None of them keeps state: what has happened so far arrives in `history`.

    next_problems: (step, count, pool, history, seed) -> which `count` problems to play in this step, one group each.
    shape:         a conversation -> named reward terms added to its outcome; each is logged apart. Empty: the outcome alone.
    keep:          whether a group trains. Dropped groups are counted; their tokens are not scored.
    advantages:    rewards (n,) and the number of each one's group (n,) -> advantages (n,).
    token_loss:    (logp, old_logp, advantages, mask) -> the loss of each token (b, t); the room sums it over `mask` and divides by the
                   step's number of trained tokens. logp: of the present policy, with gradient; old_logp: as recorded when the token
                   was sampled; advantages (b, 1).
    prepare:       which parameters train and how they start: the loaded model -> the model to train (frozen parts, adapters).
    finish:        the trained model -> the checkpoint to keep (adapters merged); it is given a copy, since training may go on.
    """

    next_problems: Callable[[int, int, Sequence[Screened], Sequence[Group], int], list[Problem]]
    shape: Callable[[Trajectory], dict[str, float]]
    keep: Callable[[Group], bool]
    advantages: Callable[[Tensor, Tensor], Tensor]
    token_loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    prepare: Callable[[PreTrainedModel], PreTrainedModel] = as_it_is
    finish: Callable[[PreTrainedModel], PreTrainedModel] = as_it_is
