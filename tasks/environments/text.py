"""Facts that are told and asked, and replies of several words whose qualities are exact numbers that conflict.

    k3 ?                         v5                      plain: asked, and a reply
    ask k3 answer                open v5 close           framed: the same in a format of its own
    k3 is v5 .                   of k3 note v5 .         told, in either style: rows of the forms `told` and `recalled`

Each key has `facts` right values, which nothing in a question gives away: they have to be held in the weights. Telling and asking are
different skills over the same knowledge: a model may know a fact and not the format, or the other way round. A key lies in one split
with all its questions; told are the keys of all splits.

A reply is a list of words, the action its number among all lists. Beside what is right it is long or short, polite, has a number,
repeats itself: each quality is a number in [0, 1]. With `wishes`, an episode says which of them it wants or avoids (`want polite avoid
long`); with `aims`, how much length is worth beside what is right (`aim_0` to `aim_6`, -45 to 45 degrees). So the best reply hangs on
what is asked for, and what is good in one way is bad in another.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from tasks.contract.context import seed_of
from tasks.contract.params import BadInput
from tasks.contract.params import Params as Base
from tasks.contract.problem import Split
from tasks.environments import NO_ACTION, Steps, mistakes
from tasks.environments.draws import below, number, numbers
from tasks.environments.tokens import SPECIALS

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

NAME = "text"
FRAME = ("?", "ask", "answer", "open", "close", "is", ".", "of", "note", "want", "avoid")
POLITE, NUMBER = ("please", "kindly"), ("one", "two")
QUALITIES = ("long", "polite", "number", "varied")
"""Qualities of a reply that an episode may want or avoid, each in [0, 1]: its words over the most there may be; whether a word of
POLITE, or of NUMBER, is in it; the share of its words that stand in it for the first time."""
AIMS = tuple(math.radians(degrees) for degrees in (-45, -30, -15, 0, 15, 30, 45))
"""Angles: what is right counts by the cosine, length by the sine; DPA's range (https://arxiv.org/abs/2402.18571)."""
STYLES = ("plain", "framed")
FORMS = {
    "told": "sentences that tell facts of keys of all splits; all words but the first train (continued pre-training)",
    "recalled": "the same sentences, of which the values alone train: does a model know the facts?",
}


class Params(Base):
    """Which facts there are, and what an episode asks for."""

    seed: int = Field(0, ge=0, description="which facts: another seed, others; ours")
    keys: int = Field(24, ge=4, le=4096, description="keys that facts are about; ours")
    groups: int = Field(1, ge=1, le=64, description="families of keys of like size, such as general ones and those of a domain; ours")
    kinds: int = Field(12, ge=2, le=1024, description="values that there are; ours")
    facts: int = Field(1, ge=1, le=16, description="right values of each key; ours")
    style: Literal["plain", "framed", "both"] = Field(
        "plain", description="how is asked and replied; both: each by a family of its own"
    )
    train: float = Field(0.7, gt=0, lt=1, description="share of each group's keys in split train; of the rest a third validates; ours")
    longest: int = Field(1, ge=1, le=12, description="words of a reply at most, the frame apart; at least facts; ours")
    wishes: int = Field(0, ge=0, le=len(QUALITIES), description="qualities that an episode wants or avoids; ours")
    aims: bool = Field(False, description="an episode says how much length is worth")
    sentences: int = Field(4, ge=1, le=64, description="sentences of a row of the forms told and recalled; ours")


@dataclass(frozen=True)
class State:
    """Of n episodes: key, style (place in STYLES), aim (place in AIMS, -1 for none) (n,), wishes (n, QUALITIES) of 1, -1 and 0, and
    whether they are over."""

    key: Array
    style: Array
    aim: Array
    wishes: Array
    over: bool = False


@dataclass
class Text:
    """See `tasks.environments.Environment`. An action is the number of a list of words in bijective base A, the number of words that a
    reply may hold: digit d of A, from 1, is word d - 1, the first word the lowest digit. An observation (n, 3 + QUALITIES): key, style,
    aim, wishes; the key is -1 at the end."""

    params: Params
    name = NAME
    errors = {"other_key": "the values of the next key", "wrong_value": "a value that is not the key's in place of one that is"}
    forms = FORMS
    limit = 1

    def __post_init__(self) -> None:
        params = self.params
        values = tuple(f"v{one}" for one in range(params.kinds))
        self.alphabet = (*values, *POLITE, *NUMBER, *(f"well_{one}" for one in range(params.longest)))
        aims = tuple(f"aim_{place}" for place in range(len(AIMS))) if params.aims else ()
        own = (*FRAME, *(f"k{key}" for key in range(params.keys)), *self.alphabet, *aims)
        self.words = (*own, *QUALITIES) if params.wishes else own
        self.actions = sum(len(self.alphabet) ** length for length in range(1, params.longest + 1))
        self.styles = STYLES if params.style == "both" else (params.style,)
        ends = [f"_{style}" if len(self.styles) > 1 else "" for style in self.styles]
        self.families = tuple(f"group_{group}{end}" for end in ends for group in range(params.groups))

    @cached_property
    def values(self) -> Array:
        """(keys, facts) int64: the right values of each key, different ones."""
        rng = random.Random(seed_of("facts", self.params.seed))
        return np.array([rng.sample(range(self.params.kinds), self.params.facts) for _ in range(self.params.keys)])

    @cached_property
    def splits(self) -> list[Split]:
        """The split of each key; in each group the same shares."""
        found: list[Split] = ["train"] * self.params.keys
        for group in range(self.params.groups):
            own = list(range(group, self.params.keys, self.params.groups))
            random.Random(seed_of("splits", self.params.seed, group)).shuffle(own)
            first = min(len(own) - 2, max(1, round(self.params.train * len(own))))
            rest = own[first:]
            for place, key in enumerate(rest):
                found[key] = "validation" if place < max(1, len(rest) // 3) else "test"
        return found

    # Episodes.

    def _kind(self, seed: int) -> int:
        return number(seed, 0, NAME, "family") % len(self.families)

    def _key(self, seed: int) -> int:
        group = self._kind(seed) % self.params.groups
        return group + self.params.groups * (number(seed, 0, NAME, "key") % self._size(group))

    def _size(self, group: int) -> int:
        return len(range(group, self.params.keys, self.params.groups))

    def reset(self, seeds: Sequence[int]) -> Array:
        """Draw key, style and what is wanted of each seed; returns the observations."""
        params, n = self.params, len(seeds)
        kind = below(numbers(seeds, 1, NAME, "family")[:, 0], len(self.families))
        sizes = np.array([self._size(group) for group in range(params.groups)], dtype=np.uint64)[kind % params.groups]
        key = kind % params.groups + params.groups * (numbers(seeds, 1, NAME, "key")[:, 0] % sizes).astype(np.int64)
        style = np.array([STYLES.index(one) for one in self.styles])[kind // params.groups]
        aim = below(numbers(seeds, 1, NAME, "aim")[:, 0], len(AIMS)) if params.aims else np.full(n, -1)
        order = np.argsort(numbers(seeds, len(QUALITIES), NAME, "wishes"), axis=1, kind="stable")
        sign = 1 - 2 * below(numbers(seeds, len(QUALITIES), NAME, "signs"), 2)
        self._state = State(key, style, aim, np.where(order < params.wishes, sign, 0))
        return self._observation()

    def _observation(self) -> Array:
        state = self._state
        return np.column_stack([np.full(len(state.key), -1) if state.over else state.key, state.style, state.aim, state.wishes])

    def step(self, actions: Array) -> Steps:
        """A reply ends the episode; it is worth `rewards`, and none is worth 0."""
        n, over = len(self._state.key), self._state.over
        reward = np.zeros(n) if over else np.where(np.asarray(actions) == NO_ACTION, 0.0, self.rewards(actions))
        self._state = State(self._state.key, self._state.style, self._state.aim, self._state.wishes, True)
        return Steps(self._observation(), reward, np.full(n, not over), np.zeros(n, dtype=bool), np.zeros(n, dtype=np.int64))

    def snapshot(self) -> State:
        """The state, which nobody changes: a step makes another one."""
        return self._state

    def restore(self, kept: State) -> None:
        """Go back to a state."""
        self._state = kept

    # What a reply is worth.

    def lists(self, actions: Array) -> Array:
        """(n, longest) int64: the words of each action, -1 behind the last."""
        rest, size = np.maximum(np.asarray(actions, dtype=np.int64) + 1, 0), len(self.alphabet)
        found = np.full((len(rest), self.params.longest), -1)
        for place in range(self.params.longest):
            digit = np.where(rest > 0, (rest - 1) % size + 1, 0)
            found[:, place] = digit - 1
            rest = (rest - digit) // size
        return found

    def _number(self, words: Sequence[int]) -> int:
        return sum((word + 1) * len(self.alphabet) ** place for place, word in enumerate(words)) - 1

    def qualities(self, actions: Array) -> dict[str, Array]:
        """Name -> (n,) float64 of each reply in the episodes as they stand: `right` in [-1, 1], the share of the key's values that are
        named less that of values that are wrong or named again; and QUALITIES."""
        words, kinds = self.lists(actions), self.params.kinds
        there, again = words >= 0, _again(words)

        def has(first: int, count: int) -> Array:
            return np.asarray(((words >= first) & (words < first + count)).any(1), dtype=np.float64)

        return {
            "right": self._right(words, again),
            "long": there.sum(1) / self.params.longest,
            "polite": has(kinds, len(POLITE)),
            "number": has(kinds + len(POLITE), len(NUMBER)),
            "varied": 1 - again.sum(1) / np.maximum(there.sum(1), 1),
        }

    def _right(self, words: Array, again: Array) -> Array:
        """(n,) of lists of words (n, longest), and which of these stand before already."""
        value = (words >= 0) & (words < self.params.kinds)
        good = value & ~again & (words[:, :, None] == self.values[self._state.key][:, None, :]).any(2)
        found: Array = np.clip((2 * good.sum(1) - value.sum(1)) / self.params.facts, -1, 1)
        return found

    def rewards(self, actions: Array) -> Array:
        """(n,) float64. Without wishes and aims: what is right. With aims: that times the cosine plus length times the sine. With
        wishes: half of what is right, half the mean over the wishes of the quality, or of what it lacks to 1."""
        if not (self.params.aims or self.params.wishes):
            words = self.lists(actions)
            return self._right(words, _again(words))
        found, state = self.qualities(actions), self._state
        if self.params.aims:
            angle = np.array(AIMS)[state.aim]
            result: Array = np.cos(angle) * found["right"] + np.sin(angle) * found["long"]
            return result
        each = np.column_stack([found[name] for name in QUALITIES])
        met = np.where(state.wishes > 0, each, np.where(state.wishes < 0, 1 - each, 0)).sum(1) / self.params.wishes
        both: Array = (found["right"] + met) / 2
        return both

    # Who acts.

    def oracle(self) -> Array:
        """The best list of words: the key's values, and beside them what is wanted."""
        return np.array([self._number(self._best(place)) for place in range(len(self._state.key))], dtype=np.int64)

    def _best(self, place: int) -> list[int]:
        state = self._state
        right, further = _best_shape(self.params, int(state.aim[place]), tuple(state.wishes[place].tolist()))
        return [*self.values[state.key[place]][:right].tolist(), *further]

    def expert(self, rates: Mapping[str, float], rng: np.random.Generator) -> Array:
        """The best list, or at these rates what `errors` says."""
        wrong, found = mistakes.drawn(NAME, self.errors, rates, len(self._state.key), rng), []
        for place, mistake in enumerate(wrong):
            words, own = self._best(place), self.values[self._state.key[place]].tolist()
            count = sum(word < self.params.kinds for word in words)
            if mistake == "other_key":
                words[:count] = self.values[(self._state.key[place] + 1) % self.params.keys][:count].tolist()
            elif mistake == "wrong_value" and count:
                words[0] = int(rng.choice([value for value in range(self.params.kinds) if value not in own]))
            found.append(self._number(words))
        return np.array(found, dtype=np.int64)

    # As text.

    def tell(self) -> list[str]:
        """The question, and what is wanted of the reply; "" at the end."""
        if self._state.over:
            return [""] * len(self._state.key)
        return [self._question(row[0], row[1], row[2], row[3:]) for row in self._observation().tolist()]

    def _question(self, key: int, style: int, aim: int, wishes: Sequence[int]) -> str:
        signs = [("want" if sign > 0 else "avoid", name) for name, sign in zip(QUALITIES, wishes, strict=True) if sign]
        asked_for = [*([f"aim_{aim}"] if self.params.aims else []), *(word for pair in signs for word in pair)]
        return " ".join([f"k{key}", "?", *asked_for] if STYLES[style] == "plain" else ["ask", f"k{key}", *asked_for, "answer"])

    def replies(self, actions: Array) -> list[str]:
        """The words of each list, in the episode's style."""
        texts = [" ".join(self.alphabet[word] for word in row if word >= 0) for row in self.lists(actions).tolist()]
        plain = [STYLES[style] == "plain" for style in self._state.style.tolist()]
        return [text if bare else f"open {text} close" for text, bare in zip(texts, plain, strict=True)]

    def read(self, replies: Sequence[str]) -> Array:
        """Replies as the numbers of their lists; NO_ACTION for another style than the episode's, other words, and too many or none."""
        known = {word: place for place, word in enumerate(self.alphabet)}
        found = []
        for reply, style in zip(replies, self._state.style.tolist(), strict=True):
            words = reply.split()
            if STYLES[style] == "framed":
                words = words[1:-1] if words[:1] == ["open"] and words[-1:] == ["close"] else []
            good = 0 < len(words) <= self.params.longest and all(word in known for word in words)
            found.append(self._number([known[word] for word in words]) if good else NO_ACTION)
        return np.array(found, dtype=np.int64)

    def rows(self, form: str, seeds: Sequence[int], rng: np.random.Generator) -> list[tuple[list[int], list[bool]]]:
        """Rows (ids, trained) of the forms in `forms`, one a seed: sentences about keys of its family, in its style."""
        ids = {word: len(SPECIALS) + place for place, word in enumerate(self.words)}
        found = []
        for seed in seeds:
            kind = self._kind(seed)
            group, style = kind % self.params.groups, self.styles[kind // self.params.groups]
            text, values = [], []
            for place in range(self.params.sentences):
                key = group + self.params.groups * (number(seed, place, NAME, "told") % self._size(group))
                own = [f"v{value}" for value in self.values[key]]
                sentence = [f"k{key}", "is", *own, "."] if style == "plain" else ["of", f"k{key}", "note", *own, "."]
                text += [ids[word] for word in sentence]
                values += [word in own for word in sentence]
            found.append((text, values if form == "recalled" else [place > 0 for place in range(len(text))]))
        return found

    # Kinds of episodes.

    def family(self, seed: int) -> str:
        """The group of the key, and the style where there are two."""
        return self.families[self._kind(seed)]

    def split(self, seed: int) -> Split:
        """That of the key, whatever is wanted of the reply."""
        return self.splits[self._key(seed)]


def _again(words: Array) -> Array:
    """(n, longest) bool: whether a word of a list stands in it before already."""
    if words.shape[1] == 1:
        return np.zeros(words.shape, dtype=bool)
    found: Array = np.tril(words[:, :, None] == words[:, None, :], -1).any(2) & (words >= 0)
    return found


@lru_cache(maxsize=4096)
def _best_shape(params: Params, aim: int, wishes: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """(right values, further words) of the best reply. It is enough to look at these: further words are polite or not, a number or not,
    and so many others, all different or all the same, since nothing else changes a quality, and each is linear in how many are new."""
    one = Text(params)
    first, others = params.kinds, params.kinds + len(POLITE) + len(NUMBER)
    shapes = []
    for right in range(params.facts + 1):
        for manner in ((), (first,), (first + len(POLITE),), (first, first + len(POLITE))):
            for count in range(params.longest - right - len(manner) + 1):
                different = tuple(range(others, others + count))
                same = ((manner or (others,))[0],) * count
                shapes += [(right, (*manner, *fill)) for fill in dict.fromkeys((different, same)) if right + len(manner) + count]
    n = len(shapes)
    key = np.zeros(n, dtype=np.int64)
    one.restore(State(key, key, np.full(n, aim), np.tile(wishes, (n, 1))))
    lists = [[*one.values[0][:right].tolist(), *further] for right, further in shapes]
    return shapes[int(np.argmax(np.round(one.rewards(np.array([one._number(words) for words in lists])), 12)))]


def environment(params: Params) -> Text:
    """The facts that params describe. BadInput for params that do not go together."""
    if not params.facts <= min(params.longest, params.kinds - 1):
        raise BadInput(
            f"facts = {params.facts} are more than a reply holds (longest = {params.longest}), or leave no wrong value (kinds = "
            f"{params.kinds}). Allowed: at most longest, and less than kinds."
        )
    if params.keys < 4 * params.groups:
        raise BadInput(f"keys = {params.keys} are less than 4 for each of {params.groups} groups, so a split would have none.")
    if params.aims and params.wishes:
        raise BadInput(f"aims and wishes = {params.wishes}: an episode asks for one of them. Write aims: false, or wishes: 0.")
    made = Text(params)
    if made.actions >= 1 << 62:
        raise BadInput(
            f"longest = {params.longest} words of {len(made.alphabet)} make more lists than 64 bits count. Lower it or kinds."
        )
    return made
