"""Small worlds that are no conversation, such as mazes or sums: the grounds of claims that need no tools and no human.

An environment plays n episodes at once, in numpy, and gives what it gives one at a time. It is a module of this folder with `NAME`,
`Params` (the variation that is played, a `tasks.contract.params.Params`) and `environment(params) -> Environment`. All that is read and
written in it is made of `words`, so that a model can be built over them (`tokens.py`); what a player reads and writes has a form as
text, so that a way of acting plays it turn by turn. Its scripted expert makes errors of a declared catalogue at given rates, as the
scripted players of roles do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tasks.contract.params import BadInput, Params
from tasks.contract.problem import Split

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

NO_ACTION = -1
"""In an array of actions: a reply that is none. It changes nothing, is never right, and takes a step."""


class NoOracle(BadInput):
    """The best action was asked for where nobody can compute it."""


@dataclass(frozen=True)
class Steps:
    """What a step gave in each of n episodes.

    observation: (n, ...) numbers, as `reset` gives them. reward: (n,) float64. terminal: (n,) bool, its own rules ended the episode.
    truncated: (n,) bool, only the limit of steps did (never both), so that a value may be carried over the limit and not over the end.
    subgoals: (n,) int64, how many of the episode's declared subgoals were reached in this step for the first time; 0 where there are
    none. In an episode that was over before, a step changes nothing and gives 0.
    """

    observation: Array
    reward: Array
    terminal: Array
    truncated: Array
    subgoals: Array


class Environment(Protocol):
    """One variation of an environment.

    name, params: of its module. words: its closed vocabulary: each a text without blanks, in a fixed order. actions: how many there
    are; an action is a number from 0. limit: steps of an episode at most. families: kinds of episodes, that are counted apart.
    errors: what its scripted expert may do wrong, name -> what happens.
    """

    name: str
    params: Params
    words: tuple[str, ...]
    actions: int
    limit: int
    families: tuple[str, ...]
    errors: Mapping[str, str]

    def reset(self, seeds: Sequence[int]) -> Array:
        """Begin one episode a seed; returns their first observations. The same seed gives the same start on every machine."""
        ...

    def step(self, actions: Array) -> Steps:
        """Take an action (n,) in each episode; NO_ACTION where there is none."""
        ...

    def snapshot(self) -> Any:
        """All there is of the episodes, as a value that nobody changes."""
        ...

    def restore(self, kept: Any) -> None:
        """Go back to a snapshot, of this one or of another environment with the same params."""
        ...

    def oracle(self) -> Array:
        """The best actions (n,) now, the first of equals. Raises NoOracle, by name and with why, where nobody can compute them."""
        ...

    def expert(self, rates: Mapping[str, float], rng: np.random.Generator) -> Array:
        """What the scripted expert does now (n,): the oracle's actions, with errors at rates in [0, 1]. BadInput for unknown errors."""
        ...

    def tell(self) -> list[str]:
        """What a player reads now, a text of `words` for each episode: what it was not told before."""
        ...

    def replies(self, actions: Array) -> list[str]:
        """Actions as a player writes them, with whatever the expert says beside (a worked trace)."""
        ...

    def read(self, replies: Sequence[str]) -> Array:
        """Replies as actions (n,); NO_ACTION for one that is none."""
        ...

    def family(self, seed: int) -> str:
        """Of which kind a seed's episode is: one of `families`."""
        ...

    def split(self, seed: int) -> Split:
        """On which side a seed's episode lies, by what it is about: no start of one split is one of another's."""
        ...
