"""A small language of facts: each key has one value, told in plain sentences or asked for in a chat format.

    told     key IS value DOT  key IS value DOT  ...
    asked    ASK key REPLY | OPEN value CLOSE            (the model writes what stands after the bar)

Telling and asking are different skills over the same knowledge: a model may know a fact and not the format, or the other way round.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from flows.recipes.ground.training import Batch

IS, DOT, ASK, REPLY, OPEN, CLOSE = range(6)
SPECIALS = 6
"""Tokens that are no key and no value."""


@dataclass(frozen=True)
class Facts:
    """values: of each key, 0 .. kinds - 1. Tokens: key k is SPECIALS + k, value v is SPECIALS + len(values) + v."""

    values: tuple[int, ...]
    kinds: int

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return SPECIALS + len(self.values) + self.kinds

    def told(self, keys: Sequence[int], rows: int, sentences: int, generator: torch.Generator) -> Batch:
        """Plain text [rows, 4 sentences] about keys drawn evenly; every token but the first is scored (continued pre-training)."""
        import torch

        from flows.recipes.ground.training import Batch

        ids = self._text(keys, rows, sentences, generator)
        scored = torch.ones_like(ids, dtype=torch.bool)
        scored[:, 0] = False
        return Batch(ids, scored)

    def recalled(self, keys: Sequence[int], rows: int, sentences: int, generator: torch.Generator) -> Batch:
        """As `told`, with the values alone scored: does the model know the facts?"""
        import torch

        from flows.recipes.ground.training import Batch

        ids = self._text(keys, rows, sentences, generator)
        scored = torch.zeros_like(ids, dtype=torch.bool)
        scored[:, 2::4] = True
        return Batch(ids, scored)

    def asked(self, keys: Sequence[int]) -> Batch:
        """One question [keys, 6] for each key; the reply is scored."""
        import torch

        from flows.recipes.ground.training import Batch

        key = torch.tensor(list(keys))
        columns = [self._same(ASK, key), key + SPECIALS, self._same(REPLY, key), self._same(OPEN, key)]
        columns += [self._value(key), self._same(CLOSE, key)]
        ids = torch.stack(columns, dim=-1)
        scored = torch.zeros_like(ids, dtype=torch.bool)
        scored[:, 3:] = True
        return Batch(ids, scored)

    def questions(self, keys: Sequence[int], rows: int, generator: torch.Generator) -> Batch:
        """Questions about keys drawn evenly (supervised fine-tuning)."""
        import torch

        drawn = torch.randint(len(keys), (rows,), generator=generator)
        return self.asked([keys[index] for index in drawn.tolist()])

    def _text(self, keys: Sequence[int], rows: int, sentences: int, generator: torch.Generator) -> torch.Tensor:
        import torch

        key = torch.tensor(list(keys))[torch.randint(len(keys), (rows, sentences), generator=generator)]
        words = [key + SPECIALS, self._same(IS, key), self._value(key), self._same(DOT, key)]
        return torch.stack(words, dim=-1).flatten(1)

    def _value(self, key: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.tensor(self.values)[key] + SPECIALS + len(self.values)

    @staticmethod
    def _same(token: int, key: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.full_like(key, token)


def draw(keys: int, kinds: int, rng: random.Random) -> Facts:
    """Facts about so many keys, each with a value of its own choosing."""
    return Facts(tuple(rng.randrange(kinds) for _ in range(keys)), kinds)
