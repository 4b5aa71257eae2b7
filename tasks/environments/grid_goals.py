"""Goals of the environment `grid`: formulas over facts, as arrays for many episodes at once and as text.

A goal is one or several options of which one is enough; an option is two literals that both have to hold; a literal is a fact or its
negation. Facts are numbered, so that an episode's facts are one row of booleans and a goal is a row of numbers that picks from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, permutations
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

COLOURS = ("red", "green", "blue", "yellow")
"""The things there are, in the order of their numbers."""
PAIRS = tuple(sorted(combinations(range(len(COLOURS)), 2), key=lambda pair: pair[::-1]))
"""Of things, those of the first few things first."""
FIRSTS, SECONDS = (np.array(one) for one in zip(*PAIRS, strict=True))
HOLD, AT, BEEN, NEAR = 0, len(COLOURS), 2 * len(COLOURS), 3 * len(COLOURS)
LIE = NEAR + len(PAIRS)
"""Where the facts of each kind begin: the player holds a thing; stands where it is; has ever stood where it was; two things are at
most one step apart (a thing that is held is where the player is); two things lie so, neither of them held."""
HAND, KEY, OPEN, TRUE = range(LIE + len(PAIRS), LIE + len(PAIRS) + 4)
"""The player holds anything; has the key; the door is open; what always holds."""
FACTS = TRUE + 1
NEVER, ALREADY = "never", "already"
"""Families of goals that nothing can be learned from: they contradict themselves, or hold from the start."""


@dataclass(frozen=True)
class Form:
    """One kind of options: all that there are of it, c of them.

    facts, negated: (c, 2), the literals. parts: (c, 2), what has to be the case on every way to it, TRUE for nothing. things: (c, 2),
    the things it speaks of, -1 for none. moves: whether carrying one of them can be of use.
    """

    facts: Array
    negated: Array
    parts: Array
    things: Array
    moves: bool


def _option(name: str, a: int, b: int) -> tuple[list[int], list[bool], list[int]]:
    """(facts, negated, parts) of one option."""
    plain = [False, False]
    match name:
        case "reach":
            return [AT + a, TRUE], plain, [TRUE, TRUE]
        case "fetch":
            return [HOLD + a, TRUE], plain, [BEEN + a, TRUE]
        case "bring":
            return [NEAR + PAIRS.index((a, b)), TRUE], plain, [HAND, TRUE]
        case "carry":
            return [HOLD + a, AT + b], plain, [HOLD + a, TRUE]
        case "leave":
            return [LIE + PAIRS.index((a, b)), TRUE], plain, [HAND, TRUE]
        case "tour":
            return [BEEN + a, BEEN + b], plain, [BEEN + a, BEEN + b]
        case "never":
            return [HOLD + a, HOLD + b], plain, [TRUE, TRUE]
        case _:  # already
            return [HOLD + a, TRUE], [True, False], [TRUE, TRUE]


FORMS = {
    "reach": "stand where a thing is",
    "fetch": "hold a thing",
    "bring": "two things at most one step apart",
    "carry": "hold a thing and stand where another is",
    "leave": "two things lie at most one step apart",
    "tour": "have stood where each of two things was",
    NEVER: "hold two things, which one hand cannot",
    ALREADY: "not hold a thing, as at the start",
}
ONE_THING = ("reach", "fetch", ALREADY)
BOTH_WAYS = ("carry",)
"""Forms for which it matters which of the two things is which."""
ON_FOOT = ("tour",)
"""Forms for which carrying anything is of no use: whoever can take a thing has been where it was."""


@lru_cache(maxsize=64)
def form(name: str, things: int) -> Form:
    """A form over the first `things` colours, its options in a fixed order."""
    pairs = (
        [(a, -1) for a in range(things)]
        if name in ONE_THING
        else list((permutations if name in BOTH_WAYS else combinations)(range(things), 2))
    )
    options = [_option(name, a, b) for a, b in pairs]
    facts, negated, parts = (np.array([one[place] for one in options]).reshape(-1, 2) for place in range(3))
    return Form(facts, negated.astype(bool), parts, np.array(pairs).reshape(-1, 2), name not in ON_FOOT)


def facts_of(agent: Array, places: Array, hand: Array, been: Array, near: Array) -> Array:
    """(n, FACTS) bool. agent: (n,) cells; places: (n, things) where each thing is; hand: (n,) the thing that is held or -1; been:
    (n, things) bool; near: (cells, cells) bool, which are at most one step apart. KEY and OPEN are left False: whoever has a door sets
    them."""
    things = places.shape[1]
    held = hand[:, None] == np.arange(things)
    pairs = things * (things - 1) // 2
    first, second = FIRSTS[:pairs], SECONDS[:pairs]
    close = near.take(places.take(first, 1) * len(near) + places.take(second, 1))
    facts = np.zeros((len(agent), FACTS), dtype=bool)
    facts[:, HOLD : HOLD + things] = held
    facts[:, AT : AT + things] = places == agent[:, None]
    facts[:, BEEN : BEEN + things] = been
    facts[:, NEAR : NEAR + pairs] = close
    facts[:, LIE : LIE + pairs] = close & ~(held.take(first, 1) | held.take(second, 1))
    facts[:, HAND] = hand >= 0
    facts[:, TRUE] = True
    return facts


def holds(facts: Array, goal: Array, negated: Array) -> Array:
    """(n,) whether the goals hold. facts: (n, FACTS) bool. goal, negated: (n, options, 2)."""
    n = len(facts)
    literals = facts.take(goal + (np.arange(n) * FACTS)[:, None, None]) ^ negated
    both = literals[..., 0] & literals[..., 1]
    return both[:, 0] if both.shape[1] == 1 else np.asarray(both.any(1))


def text(goal: Sequence[Sequence[int]], negated: Sequence[Sequence[bool]]) -> str:
    """A goal in words: `hold red and at blue or near red green`."""
    return " or ".join(
        " and ".join(_literal(fact, no) for fact, no in zip(facts, signs, strict=True) if fact != TRUE)
        for facts, signs in zip(goal, negated, strict=True)
    )


def _literal(fact: int, no: bool) -> str:
    if fact >= NEAR:
        lie, pair = divmod(fact - NEAR, len(PAIRS))
        plain = f"{('near', 'lie')[lie]} " + " ".join(COLOURS[one] for one in PAIRS[pair])
    else:
        plain = f"{('hold', 'at', 'been')[fact // len(COLOURS)]} {COLOURS[fact % len(COLOURS)]}"
    return f"not {plain}" if no else plain


WORDS = ("hold", "at", "been", "near", "lie", "not", "and", "or")
