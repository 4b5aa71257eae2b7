"""The problems that a run trains on: screened by play, per family, so that no family falls out because it is hard."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from tasks.rl.core.hooks import Group, Screened
from tasks.worlds import Problem

NEVER = 4
"""At most one in 4 of a family's places goes to problems that were never solved: they rarely give a gradient, but a family whose
problems are all of that kind must not fall out. Ours."""


def choose_pool(screened: Sequence[Screened], size: int) -> list[Screened]:
    """At most `size` problems, an equal share a family: first those of medium difficulty (solved sometimes), then, in turns,
    problems always solved (they guard what is known) and some that were never solved.

    Screening over all families at once would drop the never-solved refusals and keep the writes: acting would be rewarded, and
    refusing unlearned (measured: refusals fell from 0.52 to 0.1).
    """
    families = sorted({item.problem.family for item in screened})
    share = -(-size // max(1, len(families)))
    pool: list[Screened] = []
    for family in families:
        mine = [item for item in screened if item.problem.family == family]
        medium = [item for item in mine if 0 < item.solved < item.trials]
        always = [item for item in mine if item.solved == item.trials]
        never = [item for item in mine if item.solved == 0][: max(1, share // NEVER)]
        pool += (medium + _alternate(always, never))[:share]
    return pool


def _alternate(first: Sequence[Screened], second: Sequence[Screened]) -> list[Screened]:
    rank = [(index, 0, item) for index, item in enumerate(first)] + [(index, 1, item) for index, item in enumerate(second)]
    return [item for _, _, item in sorted(rank, key=lambda entry: entry[:2])]


def round_robin(step: int, count: int, pool: Sequence[Screened], seed: int) -> list[Problem]:
    """`count` problems for `step` (from 0) of an endless walk: every problem once a round, families spread evenly over it."""
    places = []
    for family in sorted({item.problem.family for item in pool}):
        line = [item.problem for item in pool if item.problem.family == family]
        random.Random(f"{seed}-{family}").shuffle(line)
        places += [((index + 0.5) / len(line), family, problem) for index, problem in enumerate(line)]
    walk = [problem for _, _, problem in sorted(places, key=lambda place: place[:2])]
    return [walk[turn % len(walk)] for turn in range(step * count, (step + 1) * count)]


def difficulty(screened: Sequence[Screened]) -> dict[str, dict[str, int]]:
    """Per family: how many problems were solved never, sometimes, always."""
    table: dict[str, Counter[str]] = {}
    for item in screened:
        word = "never" if item.solved == 0 else "always" if item.solved == item.trials else "sometimes"
        table.setdefault(item.problem.family, Counter())[word] += 1
    return {family: dict(sorted(table[family].items())) for family in sorted(table)}


def has_spread(group: Group) -> bool:
    """Whether the raw outcomes of a group differ. Shaped rewards must not bring a group without spread to life."""
    return len(set(group.outcomes)) > 1
