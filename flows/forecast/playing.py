"""Memory of checkpoints that play, in bytes: weights, keys and values, what one pass computes.

Keys and values follow tokens, not rows x the longest conversation, and what conversations begin with alike is there once: Kwon and
others, https://arxiv.org/abs/2309.06180, as the engine `own` keeps them (`tasks/players/local/own/pages.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from flows.forecast.shape import Shape
from tasks.players.local.own.pages import tokens_of_page

MASK = 3 * 4 * (1 << 23)
"""The largest attention mask of a prefill and what is made of it (`PREFILL_CELLS` of the engine `own`, in float32)."""
LOGITS = 4
"""Times that a step's logits are there in float32: they, divided by the temperature, their log-softmax, its sum."""
FIRST = 64
"""Pages of the pool at the start, at most; it doubles when they do not do (`tasks/players/local/own/engine.py`)."""


@dataclass(frozen=True)
class Playing:
    """rows: conversations at once. tokens: of one, whole. shared: of these, what all begin with. most: of the longest that may be.
    number: bytes a number. limit: bytes that keys and values may take, 0 for no limit."""

    shape: Shape
    rows: int
    tokens: int
    shared: int
    most: int
    number: int = 4
    limit: float = 0

    def weights(self) -> float:
        """Of the checkpoint."""
        return self.number * self.shape.parameters

    def of_a_token(self) -> int:
        """Keys and values of one token in all layers."""
        return 2 * self.shape.layers * self.shape.keys * self.number

    def keys_and_values(self) -> float:
        """Of the pool of pages that all rows need, whole conversations."""
        size = tokens_of_page(self.of_a_token(), self.most)
        alone = size > self.most
        together = 0 if alone else self.shared // size
        needed = self.rows * -(-(self.tokens - together * size) // size) + together
        pages = self.rows if alone else min(FIRST, self.rows)
        while pages < needed:
            pages *= 2
        wanted = float(pages * size * self.of_a_token())
        return min(wanted, self.limit) if self.limit else wanted

    def computing(self) -> float:
        """The largest pass: a prefill's mask, the MLP of as many tokens, and the rows' logits."""
        return MASK + 4.0 * self.rows * (LOGITS * self.shape.vocabulary + 3 * self.shape.inner)

    def peak(self, weights: bool = True) -> dict[str, float]:
        """The parts. weights: False where they are in memory already, as a policy's are."""
        own = {"weights": self.weights()} if weights else {}
        return {**own, "keys and values": self.keys_and_values(), "passing": self.computing()}
