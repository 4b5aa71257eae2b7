"""Symbol maps: a row names its map with a word of its own, or shows some pairs of it, then asks what the map makes of symbols.

    map_3  a5            the player replies a12, if map_3 makes a12 of a5
    a7                   ... and so on, `questions` times

A named map is a table that a model has to hold in its weights: nothing told gives it away but its name, so models that learned
different maps from one base differ in what they hold and share what all maps need. A map that is not named has to be found in the
`examples` that are told first. With two alphabets each map is written in both, in symbols that have nothing in common.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from tasks.contract.context import seed_of
from tasks.contract.params import BadInput
from tasks.contract.params import Params as Base
from tasks.contract.problem import Split
from tasks.environments import NO_ACTION, Steps, mistakes
from tasks.environments.draws import below, number, numbers, split_of
from tasks.environments.tokens import SPECIALS

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

NAME = "maps"
LETTERS = "ab"
"""How the symbols of the alphabets begin."""
PART = "_part"
"""How the names of families end whose episodes show only the symbols that count as known."""
FORMS = {"pairs": "the map's name and examples, then each symbol followed by its image, without turns; only the images train"}


class Params(Base):
    """Which maps there are, and what an episode asks."""

    seed: int = Field(0, ge=0, description="which maps: another seed, other tables; ours")
    maps: int = Field(8, ge=1, le=512, description="how many; ours")
    symbols: int = Field(31, ge=3, le=512, description="symbols that a map is over; ours")
    law: Literal["affine", "permutation"] = Field("affine", description="a x + b modulo symbols, or any order of the symbols; ours")
    questions: int = Field(8, ge=1, le=256, description="symbols that an episode asks about, one a step; ours")
    examples: int = Field(0, ge=0, le=256, description="pairs of a symbol and its image that an episode tells first; ours")
    named: bool = Field(True, description="an episode tells the map's name")
    alphabets: int = Field(1, ge=1, le=len(LETTERS), description="ways in which each map is written; ours")
    known: float = Field(
        1.0, gt=0, le=1, description="share of each map's symbols that the families `..._part` show; 1: no such families; ours"
    )


@dataclass(frozen=True)
class State:
    """Of n episodes: the map, the alphabet (n,), the symbols that are asked (n, questions) and
    of the examples (n, examples), and the step."""

    map: Array
    alphabet: Array
    questions: Array
    examples: Array
    step: int


@dataclass
class Maps:
    """See `tasks.environments.Environment`. An action is a symbol of any alphabet. An observation (n, 2 + 2 examples): the map, -1
    where it is not named; the symbol that is asked now, -1 at the end; the examples."""

    params: Params
    name = NAME
    errors = {"other_map": "the image that the next map has for the symbol", "next_symbol": "the symbol after the right one"}
    forms = FORMS

    def __post_init__(self) -> None:
        self.limit = self.params.questions
        self.actions = self.params.alphabets * self.params.symbols
        ends = ("", PART) if self._parts == 2 else ("",)
        letters = LETTERS[: self.params.alphabets]
        marks = [f"_{letter}" if len(letters) > 1 else "" for letter in letters]
        self.families = tuple(f"map_{one}{mark}{end}" for end in ends for mark in marks for one in range(self.params.maps))
        self.words = tuple(f"map_{one}" for one in range(self.params.maps)) + tuple(
            f"{letter}{symbol}" for letter in letters for symbol in range(self.params.symbols)
        )

    @property
    def _parts(self) -> int:
        return 2 if self.params.known < 1 else 1

    @cached_property
    def tables(self) -> Array:
        """(maps, symbols) int64: what each map makes of each symbol. BadInput when there are not so many maps."""
        params, rng = self.params, random.Random(seed_of("maps", self.params.seed))
        if params.law == "permutation":
            return np.array([rng.sample(range(params.symbols), params.symbols) for _ in range(params.maps)])
        laws = [(a, b) for a in range(1, params.symbols) if math.gcd(a, params.symbols) == 1 for b in range(params.symbols)]
        if params.maps > len(laws):
            raise BadInput(
                f"symbols = {params.symbols} allows {len(laws)} affine maps; {params.maps} are wanted. Use more symbols or fewer maps."
            )
        return np.array([[(a * x + b) % params.symbols for x in range(params.symbols)] for a, b in rng.sample(laws, params.maps)])

    @cached_property
    def known(self) -> Array:
        """(maps, k) int64: the symbols of each map that count as known, for each map others."""
        count = max(1, round(self.params.known * self.params.symbols))
        drawn = [random.Random(seed_of("known", self.params.seed, one)) for one in range(self.params.maps)]
        return np.array([sorted(rng.sample(range(self.params.symbols), count)) for rng in drawn])

    # Episodes.

    def _kind(self, seed: int) -> int:
        return number(seed, 0, NAME, "family") % len(self.families)

    def reset(self, seeds: Sequence[int]) -> Array:
        """Draw map, alphabet and symbols of each seed; returns the first observations."""
        params = self.params
        kind = below(numbers(seeds, 1, NAME, "family")[:, 0], len(self.families))
        map_, alphabet = kind % params.maps, kind // params.maps % params.alphabets
        part = kind >= params.maps * params.alphabets
        drawn = numbers(seeds, params.questions + params.examples, NAME, "symbols")
        symbols = below(drawn, params.symbols)
        if part.any():
            some = self.known[map_[part]]
            symbols[part] = np.take_along_axis(some, below(drawn[part], some.shape[1]), 1)
        self._state = State(map_, alphabet, symbols[:, : params.questions], symbols[:, params.questions :], 0)
        return self._observation()

    def _observation(self) -> Array:
        state, params = self._state, self.params
        n, move = len(state.map), (state.alphabet * params.symbols)[:, None]
        asked = state.questions[:, state.step] + move[:, 0] if state.step < params.questions else np.full(n, -1)
        pairs = np.stack([state.examples + move, self._images(state.examples) + move], -1).reshape(n, -1)
        return np.column_stack([state.map if params.named else np.full(n, -1), asked, pairs])

    def _images(self, symbols: Array, further: int = 0) -> Array:
        """Of symbols (n, k) under each episode's map, or the one so much further on."""
        return self.tables[(self._state.map[:, None] + further) % self.params.maps, symbols]

    def _right(self, further: int = 0) -> Array:
        """(n,) the right actions now; NO_ACTION when nothing is asked any more."""
        state = self._state
        if state.step >= self.params.questions:
            return np.full(len(state.map), NO_ACTION)
        return self._images(state.questions[:, [state.step]], further)[:, 0] + state.alphabet * self.params.symbols

    def step(self, actions: Array) -> Steps:
        """Every right image is worth 1 / questions."""
        n, over = len(self._state.map), self._state.step >= self.params.questions
        reward = np.zeros(n) if over else (np.asarray(actions) == self._right()) / self.params.questions
        state = self._state
        self._state = State(state.map, state.alphabet, state.questions, state.examples, min(state.step + 1, self.params.questions))
        ended = not over and self._state.step == self.params.questions
        return Steps(self._observation(), reward, np.full(n, ended), np.zeros(n, dtype=bool), np.zeros(n, dtype=np.int64))

    def snapshot(self) -> State:
        """The state, which nobody changes: a step makes another one."""
        return self._state

    def restore(self, kept: State) -> None:
        """Go back to a state."""
        self._state = kept

    # Who acts.

    def oracle(self) -> Array:
        """The image of the symbol that is asked now."""
        return self._right()

    def expert(self, rates: Mapping[str, float], rng: np.random.Generator) -> Array:
        """The right image, or at these rates what `errors` says."""
        right, symbols = self._right(), self.params.symbols
        wrong = mistakes.drawn(NAME, self.errors, rates, len(right), rng)
        after = right - right % symbols + (right % symbols + 1) % symbols
        return np.select([right == NO_ACTION, wrong == "other_map", wrong == "next_symbol"], [right, self._right(1), after], right)

    # As text.

    def _symbol(self, action: int) -> str:
        return self.words[self.params.maps + action]

    def tell(self) -> list[str]:
        """The map's name and examples once, then the symbol that is asked; "" at the end."""
        state, params = self._state, self.params
        if state.step >= params.questions:
            return [""] * len(state.map)
        return [" ".join(self._words(row, first=state.step == 0)) for row in self._observation().tolist()]

    def _words(self, row: Sequence[int], first: bool) -> list[str]:
        """What is told of an observation."""
        pairs = [self._symbol(one) for one in row[2:]] if first else []
        return [*([f"map_{row[0]}"] if first and self.params.named else []), *pairs, self._symbol(row[1])]

    def replies(self, actions: Array) -> list[str]:
        """The symbol itself."""
        return [self._symbol(int(action)) for action in actions]

    def read(self, replies: Sequence[str]) -> Array:
        """The symbol that a reply is; NO_ACTION for anything else."""
        known = {word: action for action, word in enumerate(self.words[self.params.maps :])}
        return np.array([known.get(reply.strip(), NO_ACTION) for reply in replies], dtype=np.int64)

    def rows(self, form: str, seeds: Sequence[int], rng: np.random.Generator) -> list[tuple[list[int], list[bool]]]:
        """Rows (ids, trained) of the forms in `forms`, one a seed."""
        self.reset(seeds)
        state, params = self._state, self.params
        first = len(SPECIALS) + params.maps + (state.alphabet * params.symbols)[:, None]
        name = (len(SPECIALS) + state.map)[:, None][:, : int(params.named)]
        pairs = [
            np.stack([one + first, self._images(one) + first], -1).reshape(len(seeds), -1) for one in (state.examples, state.questions)
        ]
        trained = [False] * (name.shape[1] + pairs[0].shape[1]) + [False, True] * params.questions
        return [(row, list(trained)) for row in np.hstack([name, *pairs]).tolist()]

    # Kinds of episodes.

    def family(self, seed: int) -> str:
        """The map, the alphabet where there are two, and whether only known symbols are shown."""
        return self.families[self._kind(seed)]

    def split(self, seed: int) -> Split:
        """By the map and all symbols that an episode shows or asks about, whatever the alphabet."""
        symbols = self.params.symbols
        kind = self._kind(seed)
        map_ = kind % self.params.maps
        drawn = [number(seed, place, NAME, "symbols") for place in range(self.params.questions + self.params.examples)]
        if kind >= self.params.maps * self.params.alphabets:
            some = self.known[map_].tolist()
            return split_of(map_, *(some[one % len(some)] for one in drawn))
        return split_of(map_, *(one % symbols for one in drawn))


def environment(params: Params) -> Maps:
    """The maps that params describe."""
    made = Maps(params)
    _ = made.tables
    return made
