"""Sums of several steps over small numbers, done from left to right, with worked solutions in two styles.

    4 7 + 5 * 3 =                    the player replies: 4 7 + 5 = 5 2 ; 5 2 * 3 = 5 6 ; answer 5 6
    wrong 4 7 + 5 * 3 =              ... after a wrong answer, when it may try again

Numbers are written digit by digit, and each result is taken modulo a number, so that the answers are counted. The long style says what
is left to do before each step, which the short one has no need for. `#` is an operation that nothing but its table explains: what is
hard for a player that cannot ask, and is told to one that may ask a tool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from tasks.contract.params import BadInput
from tasks.contract.params import Params as Base
from tasks.contract.problem import Split
from tasks.environments import NO_ACTION, Steps, mistakes
from tasks.environments.draws import below, happens, number, numbers, split_of

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

NAME = "arithmetic"
OPERATIONS = ("+", "-", "*", "#")
HARD = OPERATIONS.index("#")
WORDS = (*"0123456789", *OPERATIONS, "=", ";", ",", "answer", "left", "of", "by", "wrong", "result", "tool", "ask")
"""The same for all params, so that a model of one variation can read another."""
ERRORS = {
    "carry": "a digit of the answer is one too large or too small",
    "operation": "the last operation is done as another one",
    "skip": "the last operation is left out",
    "silent": "no answer is given",
}
PROBLEM, WRONG, RESULT = range(3)
"""What is told: the problem; that an answer was wrong, and the problem; what the tool says."""
STYLES = ("short", "long")


class Params(Base):
    """Which sums there are, how they are told and answered, and how often."""

    fewest: int = Field(3, ge=2, le=12, description="numbers of a sum at least; ours")
    most: int = Field(5, ge=2, le=12, description="numbers of a sum at most; drawn evenly; ours")
    largest: int = Field(9, ge=1, le=99_999, description="largest number of a sum; ours")
    operations: tuple[Literal["+", "-", "*"], ...] = Field(
        ("+", "-", "*"), min_length=1, description="operations between them, drawn evenly; ours"
    )
    modulus: int = Field(
        100, ge=2, le=1_000_000, description="each result is taken modulo this; the answers are 0 .. modulus - 1; ours"
    )
    hard: float = Field(0.0, ge=0, le=1, description="share of sums whose last operation is #, a fixed table without a rule; ours")
    form: Literal["inline", "apart"] = Field(
        "inline", description="inline: 4 7 + 5 * 3 =; apart: of 4 7 , 5 , 3 by + *, so that numbers and operations can be told apart"
    )
    style: Literal["short", "long", "both", "none"] = Field(
        "short", description="how the expert works a sum: short; long, with what is left before each step; both: as the seed says; none"
    )
    tries: int = Field(1, ge=1, le=16, description="answers that may be given; ours")
    blind: bool = Field(
        False, description="every answer is called wrong, and the last one counts; else a right answer ends the episode"
    )
    tool: bool = Field(False, description="the player may `ask` once, and is told the result; the problem says that it may")


@dataclass(frozen=True)
class Sums:
    """n sums; arrays are never written to. terms: (n,) how many numbers. values: (n, most), 0 where there are no more. operations:
    (n, most - 1) numbers of OPERATIONS, -1 where there are no more. results: (n, most - 1) after each. long: (n,) bool, the style."""

    terms: Array
    values: Array
    operations: Array
    results: Array
    long: Array

    @property
    def answer(self) -> Array:
        """(n,) the results of the last operations."""
        return self.results[np.arange(len(self.terms)), self.terms - 2]

    @property
    def before_last(self) -> Array:
        """(n,) what the last operations are done on."""
        first = np.concatenate([self.values[:, :1], self.results], 1)
        return first[np.arange(len(self.terms)), self.terms - 2]

    @property
    def last(self) -> tuple[Array, Array]:
        """(number, operation) of the last steps, both (n,)."""
        rows = np.arange(len(self.terms))
        return self.values[rows, self.terms - 1], self.operations[rows, self.terms - 2]


@dataclass(frozen=True)
class State:
    """n episodes. says: (n,) PROBLEM, WRONG or RESULT. answers, taken: (n,) answers given and steps. over: (n,) bool."""

    sums: Sums
    says: Array
    answers: Array
    taken: Array
    over: Array


@dataclass
class Arithmetic:
    """See `tasks.environments.Environment`.

    An action is an answer, 0 .. modulus - 1, or with a tool `modulus`, to ask it. An observation (n, 2 most + 1): how many numbers, the
    numbers, the operations (-1 where there are no more), and what is told.
    """

    params: Params
    name = NAME
    errors = ERRORS
    words = WORDS

    def __post_init__(self) -> None:
        params = self.params
        if params.fewest > params.most:
            raise BadInput(f"environment {NAME}: fewest = {params.fewest} is above most = {params.most}")
        self.limit = params.tries + params.tool
        self.actions = params.modulus + params.tool
        kinds = [""] * (params.hard < 1) + ["_hard"] * (params.hard > 0)
        self.families = tuple(f"{terms}_numbers{kind}" for kind in kinds for terms in range(params.fewest, params.most + 1))
        self._known = np.array([OPERATIONS.index(one) for one in dict.fromkeys(params.operations)])

    # Episodes.

    def _sums(self, seeds: Sequence[int]) -> Sums:
        params = self.params
        drawn = numbers(seeds, 3 + 2 * params.most, NAME)
        terms = params.fewest + below(drawn[:, 0], params.most - params.fewest + 1)
        hard = happens(drawn[:, 1], params.hard)
        there = np.arange(params.most) < terms[:, None]
        values = np.where(there, below(drawn[:, 3 : 3 + params.most], params.largest + 1), 0)
        operations = self._known[below(drawn[:, 3 + params.most : 2 + 2 * params.most], len(self._known))]
        last = np.arange(params.most - 1) == terms[:, None] - 2
        operations = np.where(there[:, 1:], np.where(last & hard[:, None], HARD, operations), -1)
        results, so_far = np.zeros_like(operations), values[:, 0] % params.modulus
        for place in range(params.most - 1):
            so_far = results[:, place] = self._result(so_far, values[:, place + 1], operations[:, place])
        both = params.style == "both"
        long = below(drawn[:, 2], 2) == 1 if both else np.full(len(seeds), params.style == "long")
        return Sums(terms, values, operations, results, long)

    def _result(self, first: Array, second: Array, operation: Array) -> Array:
        """(n,) the results of operations (n,); `first` where there is none."""
        found = np.select([operation == one for one in range(HARD)], [first + second, first - second, first * second], first)
        if (hard := operation == HARD).any():
            pairs = first[hard] * (self.params.largest + 1) + second[hard]
            found[hard] = below(numbers(pairs.tolist(), 1, NAME, "#")[:, 0], self.params.modulus)
        return found % self.params.modulus

    def reset(self, seeds: Sequence[int]) -> Array:
        """Draw the numbers and operations of each seed; returns the first observations."""
        zero = np.zeros(len(seeds), dtype=np.int64)
        self._state = State(self._sums(seeds), zero, zero, zero, np.zeros(len(seeds), dtype=bool))
        return self._observation()

    def _observation(self) -> Array:
        sums = self._state.sums
        return np.column_stack([sums.terms, sums.values, sums.operations, self._state.says])

    def step(self, actions: Array) -> Steps:
        """The right answer is worth 1."""
        state, params = self._state, self.params
        doing, live = np.asarray(actions), ~state.over
        asks = live & params.tool & (doing == params.modulus) & (state.taken == state.answers)
        answers = state.answers + (live & ~asks)
        last, taken = answers >= params.tries, state.taken + live
        right = live & (doing == state.sums.answer) & ~asks & (last | (not params.blind))
        terminal = live & ~asks & (right | last)
        truncated = live & ~terminal & (taken >= self.limit)
        says = np.where(live, np.where(asks, RESULT, WRONG), state.says)
        self._state = replace(state, says=says, answers=answers, taken=taken, over=state.over | terminal | truncated)
        return Steps(self._observation(), right.astype(float), terminal, truncated, np.zeros(len(doing), dtype=np.int64))

    def snapshot(self) -> State:
        """The state, which nobody changes: a step makes another one."""
        return self._state

    def restore(self, kept: State) -> None:
        """Go back to a state."""
        self._state = kept

    # Who acts.

    def oracle(self) -> Array:
        """The right answer."""
        return np.where(self._state.over, NO_ACTION, self._state.sums.answer)

    def expert(self, rates: Mapping[str, float], rng: np.random.Generator) -> Array:
        """The right answer, or at these rates what `errors` says."""
        sums, params, right = self._state.sums, self.params, self.oracle()
        wrong = mistakes.drawn(NAME, ERRORS, rates, len(right), rng)
        digits = len(str(params.modulus - 1))
        off = 10 ** rng.integers(digits, size=len(right)) * rng.choice([-1, 1], size=len(right))
        value, operation = sums.last
        other = self._result(sums.before_last, value, (operation + rng.integers(1, HARD, size=len(right))) % HARD)
        found = np.select(
            [right == NO_ACTION, wrong == "carry", wrong == "operation", wrong == "skip", wrong == "silent"],
            [right, (right + off) % params.modulus, other, sums.before_last % params.modulus, NO_ACTION],
            right,
        )
        return np.asarray(found)

    # As text.

    def tell(self) -> list[str]:
        """The problem, at first and after a wrong answer; or what the tool says."""
        return ["" if over else self._message(row) for row, over in enumerate(self._state.over.tolist())]

    def _message(self, row: int) -> str:
        sums, says = self._state.sums, int(self._state.says[row])
        if says == RESULT:
            return f"result {written(int(sums.answer[row]))}"
        values, operations = self._sum(row)
        if self.params.form == "apart":
            problem = f"of {' , '.join(map(written, values))} by {' '.join(operations)}"
        else:
            problem = f"{inline(values, operations)} ="
        return " ".join([*["wrong"] * (says == WRONG), *["tool"] * self.params.tool, problem])

    def _sum(self, row: int) -> tuple[list[int], list[str]]:
        """(numbers, operations) of one episode."""
        sums = self._state.sums
        terms = int(sums.terms[row])
        return sums.values[row, :terms].tolist(), [OPERATIONS[one] for one in sums.operations[row, : terms - 1].tolist()]

    def replies(self, actions: Array) -> list[str]:
        """A worked solution whose last result is the answer that the action is, right or wrong."""
        return [self._reply(row, int(action)) for row, action in enumerate(np.asarray(actions))]

    def _reply(self, row: int, action: int) -> str:
        params, sums = self.params, self._state.sums
        if params.tool and action == params.modulus:
            return "ask"
        answer = "answer" if action == NO_ACTION else f"answer {written(action)}"
        if params.style == "none" or action == NO_ACTION or self._state.says[row] == RESULT:
            return answer
        values, operations = self._sum(row)
        results = [*sums.results[row, : len(operations) - 1].tolist(), action]
        parts, so_far = [], values[0]
        for place, result in enumerate(results):
            if sums.long[row]:
                parts.append(f"left {inline([so_far, *values[place + 1 :]], operations[place:])}")
            parts.append(f"{inline([so_far, values[place + 1]], [operations[place]])} = {written(result)}")
            so_far = result
        return " ; ".join([*parts, answer])

    def read(self, replies: Sequence[str]) -> Array:
        """`ask`, or the digits after the last `answer`."""
        return np.array([self._read(reply.split()) for reply in replies], dtype=np.int64)

    def _read(self, words: Sequence[str]) -> int:
        if self.params.tool and list(words) == ["ask"]:
            return self.params.modulus
        digits = [*words][len(words) - [*reversed(words)].index("answer") :] if "answer" in words else []
        if not digits or len(digits) > 7 or not all(one in WORDS[:10] for one in digits):
            return NO_ACTION
        answer = int("".join(digits))
        return answer if answer < self.params.modulus else NO_ACTION

    # Kinds of episodes.

    def family(self, seed: int) -> str:
        """How many numbers, and whether # is among the operations."""
        params = self.params
        terms = params.fewest + number(seed, 0, NAME) % (params.most - params.fewest + 1)
        hard = happens(np.array(number(seed, 1, NAME), dtype=np.uint64), params.hard)
        return f"{terms}_numbers{'_hard' if hard else ''}"

    def split(self, seed: int) -> Split:
        """By the numbers and operations, whatever the style."""
        sums = self._sums([seed])
        return split_of(NAME, sums.terms.tolist(), sums.values.tolist(), sums.operations.tolist())


def written(value: int) -> str:
    """A number as its digits: `4 7`."""
    return " ".join(str(value))


def inline(values: Sequence[int], operations: Sequence[str]) -> str:
    """Numbers with the operations between them."""
    return " ".join([written(values[0]), *(f"{one} {written(value)}" for one, value in zip(operations, values[1:], strict=True))])


def environment(params: Params) -> Arithmetic:
    """The sums that params describe."""
    return Arithmetic(params)
