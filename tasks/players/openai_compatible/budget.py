"""What calls cost, and the hard stop: no call is started that could bring a run past what it may spend."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from tasks.contract.client import BudgetSpent
from tasks.players.openai_compatible.cache import Cache

FIRST_RATIO = 0.5
"""Tokens a byte of what is sent, before a server has told of any: English text has some 0.25, so this errs on the safe side."""
MARGIN = 1.1
"""Over the most tokens a byte that the model was seen to count."""


@dataclass(frozen=True)
class Prices:
    """Money for a million tokens, as the user says; 0 is unknown."""

    tokens_in: float = 0.0
    tokens_out: float = 0.0

    def of(self, tokens_in: float, tokens_out: float) -> float:
        """What so many tokens cost."""
        return (tokens_in * self.tokens_in + tokens_out * self.tokens_out) / 1e6


@dataclass
class TokenEstimate:
    """How many tokens a model counts in a byte of what is sent; learnt from its answers."""

    ratio: float = 0.0

    def learn(self, size: int, tokens: int) -> None:
        """An answer said how many tokens `size` bytes were."""
        self.ratio = max(self.ratio, tokens / size)

    def most(self, size: int) -> int:
        """Tokens that `size` bytes may be."""
        return int(size * (self.ratio * MARGIN if self.ratio else FIRST_RATIO)) + 1


@dataclass
class Budget:
    """What one run may still spend. Counts what its other stages and processes and earlier, killed attempts paid (by `ledger`).

    max_cost, max_tokens: 0 is no limit. Lives in the event loop's thread.
    """

    ledger: str
    cache: Cache
    max_cost: float = 0.0
    max_tokens: int = 0
    _reserved: dict[int, tuple[int, float]] = field(default_factory=dict)
    _number: int = 0
    _settled: asyncio.Event = field(default_factory=asyncio.Event)

    async def reserve(self, tokens: int, cost: float) -> int:
        """Set aside the most that a call may use; returns a number for `release`.

        While calls in flight hold the last of the budget, wait for what they really cost. Raises BudgetSpent when none is left.
        """
        while why := self._passes(tokens, cost):
            if not self._reserved:
                raise BudgetSpent(why)
            self._settled.clear()
            await self._settled.wait()
        self._number += 1
        self._reserved[self._number] = (tokens, cost)
        return self._number

    def release(self, number: int) -> None:
        """The call is over and its price, if any, in the ledger."""
        del self._reserved[number]
        self._settled.set()

    def _passes(self, tokens: int, cost: float) -> str:
        """Why a call could pass a limit, or an empty string."""
        if not self.max_cost and not self.max_tokens:
            return ""
        used, money = self.cache.spent(self.ledger)
        tokens += sum(reserved[0] for reserved in self._reserved.values())
        cost += sum(reserved[1] for reserved in self._reserved.values())
        if self.max_cost and money + cost > self.max_cost:
            return (
                f"{_NO_MORE} budget.max_cost = {self.max_cost:g}, {money:.6g} of it is spent, and it could cost {cost:.6g}. {_REMEDY}"
            )
        if self.max_tokens and used + tokens > self.max_tokens:
            return f"{_NO_MORE} budget.max_tokens = {self.max_tokens}, {used} are used, and it could use {tokens}. {_REMEDY}"
        return ""


_NO_MORE = "the next model call was not made:"
_REMEDY = "Every answer so far is kept: raise the budget and run again, and only new calls are paid for."
