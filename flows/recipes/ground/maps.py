"""Symbol-map tasks: a row names its task with a token of its own, then shows symbols, each followed by what the map makes of it.

    task  x1 y1  x2 y2  ...  xn yn        y = map(x)

Only the y are scored. A map is a table that a model has to hold in its weights: nothing in the row gives it away but the task's
token, so models that learned different maps from one base differ in what they hold and share what all maps need.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tasks.contract.context import seed_of
from tasks.contract.params import BadInput

if TYPE_CHECKING:
    import torch

    from flows.recipes.ground.training import Batch

Table = tuple[int, ...]
"""y of each x."""


@dataclass(frozen=True)
class Maps:
    """tables: one per task, all over the same symbols. pairs: of a row. shown: per task, the symbols that rows may show; empty: all
    symbols of all tasks. Tokens: task i is i, symbol x is len(tables) + x."""

    tables: tuple[Table, ...]
    pairs: int
    shown: tuple[tuple[int, ...], ...] = ()

    @property
    def symbols(self) -> int:
        """Number of symbols."""
        return len(self.tables[0])

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return len(self.tables) + self.symbols

    def partly(self, share: float, tasks: Sequence[int], seed: int) -> Maps:
        """The same maps, of which rows of `tasks` show only that share of the symbols, for each task others, at random."""
        count = round(share * self.symbols)
        some = {task: tuple(random.Random(seed_of(seed, "shown", task)).sample(range(self.symbols), count)) for task in tasks}
        every = tuple(range(self.symbols))
        return replace(self, shown=tuple(some.get(task, every) for task in range(len(self.tables))))

    def batch(self, tasks: Sequence[int], rows: int, generator: torch.Generator) -> Batch:
        """Rows [rows, 1 + 2 pairs] of tasks drawn evenly from `tasks`, symbols drawn evenly from those that the task shows."""
        import torch

        from flows.recipes.ground.training import Batch

        chosen = torch.tensor(list(tasks))[torch.randint(len(tasks), (rows,), generator=generator)]
        drawn = torch.rand((rows, self.pairs), generator=generator)
        shown = self.shown or (tuple(range(self.symbols)),) * len(self.tables)
        sizes = torch.tensor([len(one) for one in shown])[chosen, None]
        padded = torch.tensor([(*one, *[0] * (self.symbols - len(one))) for one in shown])
        x = padded[chosen].gather(1, (drawn * sizes).long())
        y = torch.tensor(self.tables)[chosen].gather(1, x)
        ids = torch.empty((rows, 1 + 2 * self.pairs), dtype=torch.long)
        ids[:, 0], ids[:, 1::2], ids[:, 2::2] = chosen, x + len(self.tables), y + len(self.tables)
        scored = torch.zeros_like(ids, dtype=torch.bool)
        scored[:, 2::2] = True
        return Batch(ids, scored)


def affine(count: int, symbols: int, rng: random.Random) -> list[Table]:
    """Different maps y = a x + b (mod symbols), a invertible. BadInput when there are not so many."""
    pairs = [(a, b) for a in range(1, symbols) if math.gcd(a, symbols) == 1 for b in range(symbols)]
    if count > len(pairs):
        raise BadInput(f"symbols = {symbols} allows {len(pairs)} affine maps; {count} are wanted. Use more symbols or fewer tasks.")
    return [tuple((a * x + b) % symbols for x in range(symbols)) for a, b in rng.sample(pairs, count)]


def permutations(count: int, symbols: int, rng: random.Random) -> list[Table]:
    """Maps drawn from all permutations."""
    return [tuple(rng.sample(range(symbols), symbols)) for _ in range(count)]
