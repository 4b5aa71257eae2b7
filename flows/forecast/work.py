"""Work in FLOP, and hours. A matrix product of m numbers costs 2 m FLOP a token; backward twice as much, once where weights are frozen:
Kaplan and others, https://arxiv.org/abs/2001.08361, section 2.1. Attention of a causal token sees half of its conversation on average.
"""

from __future__ import annotations

from flows.forecast.shape import Shape


def forward(shape: Shape, tokens: float, context: float, scored: float) -> float:
    """FLOP of reading `tokens` tokens of conversations of `context` tokens, with logits for `scored`."""
    attention = 4 * shape.layers * shape.queries * context / 2
    return tokens * (2 * shape.matrices + attention) + 2 * scored * shape.table


def seen(whole: float, shared: float, packing: str) -> float:
    """`context` of rows of `whole` tokens, of which a pack computes the `shared` first ones once: the others see all of those."""
    return whole + shared if packing == "shared_prompt" else whole


def training(shape: Shape, tokens: float, context: float, scored: float, adapter: bool, checkpointing: bool) -> float:
    """FLOP of training on them."""
    return (forward(shape, tokens, context, scored)) * ((2 if adapter else 3) + checkpointing)


def producing(shape: Shape, tokens: float, context: float) -> float:
    """FLOP of producing them one by one, each with its logits."""
    return forward(shape, tokens, 2 * context, tokens)


def hours(flop: float, rate: float) -> float:
    """At `rate` FLOP a second."""
    return flop / rate / 3600
