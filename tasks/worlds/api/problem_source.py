"""Where the problems come from that a stage plays: a world draws them, its user gave some, or a step of room generate has proven them.

A world with FAMILIES draws as many as are wanted, or of given ones as many as there are. For any other one there are the accepted
blueprints of the split (train and validation those of the road's `generate`, test those of its `reserve`), in the order in which they
were made: so the first n stay the first n when more are made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING

from tasks.contract.context import seed_of
from tasks.contract.params import BadInput
from tasks.contract.problem import Problem
from tasks.worlds.api.problem_making import draw_problems, in_turn

if TYPE_CHECKING:
    from tasks.worlds.api.runtime import World


class Problems:
    """Problems of worlds.

    proven: those that a step has proven (`tasks.contract.proven`), looked at when a world that draws none wants some. more: what to do
    where they are too few, in words.
    """

    def __init__(self, proven: Iterable[Problem], more: str) -> None:
        self._proven, self._more = proven, more

    def first(self, world: World, split: str, count: int, seed: int) -> list[Problem]:
        """`count` problems, of which the first n depend neither on `count` nor on how many are proven. seed: of a world that draws.

        Raises BadInput, with the numbers, when there are fewer; so do the other ways to get some.
        """
        if world.families:
            return draw_problems(world, split, count, seed)
        return self._enough(world, split, self.proven(world.name, split), count)[:count]

    def fresh(self, world: World, split: str, count: int, seed: int, avoid: Collection[str] = ()) -> list[Problem]:
        """`count` problems, families in turn, chosen by the seed: none whose id is in `avoid`, and none that is passive."""
        if not world.families:
            return self._enough(world, split, self._shuffled(world, split, count, seed, avoid), count)[:count]
        asked = count
        while True:
            drawn = draw_problems(world, split, asked, seed)
            found = [one for one in drawn if one.problem_id not in avoid and not one.passive]
            if len(found) >= count:
                return found[:count]
            asked += count - len(found)

    def up_to(self, world: World, split: str, count: int, seed: int) -> list[Problem]:
        """As `fresh`, but where they are given or proven as many as there are, at least one."""
        if is_given(world):
            there = sum(not one.passive for one in world.foreign.of_split(world, split))
        else:
            there = len(self.proven(world.name, split)) if not world.families else count
        return self.fresh(world, split, max(1, min(count, there)), seed)

    def proven(self, world: str, split: str) -> Sequence[Problem]:
        """The accepted blueprints of a split of a world, in the order in which they were made."""
        return self._by_place.get((world, split), ())

    def _shuffled(self, world: World, split: str, count: int, seed: int, avoid: Collection[str]) -> list[Problem]:
        left = [one for one in self.proven(world.name, split) if one.problem_id not in avoid and not one.passive]
        families = _even(Counter(one.family for one in left), count)
        return in_turn(left, families, lambda family: Random(seed_of(world.name, split, seed, family)))

    def _enough(self, world: World, split: str, found: Sequence[Problem], count: int) -> list[Problem]:
        if len(found) < count:
            raise BadInput(
                f"world {world.name} draws no problems of its own: {count} of split {split!r} are wanted, and of the "
                f"{len(self.proven(world.name, split))} that are proven {len(found)} can be used. {self._more}"
            )
        return list(found)

    @cached_property
    def _by_place(self) -> dict[tuple[str, str], list[Problem]]:
        found: dict[tuple[str, str], list[Problem]] = {}
        for one in self._proven:
            found.setdefault((one.world, one.split), []).append(one)
        return found


def is_given(world: World) -> bool:
    """Whether a world's problems are those that a user gave for it, of which there are so many and no more."""
    return world.foreign is not None and bool(world.foreign.lines)


def _even(sizes: Mapping[str, int], count: int) -> list[str]:
    """The families of which `count` problems can be taken in equal parts, as many as possible: a family with fewer is left out, in
    which no comparison would see a fall. All of them where there are no such."""
    largest = sorted(sizes, key=lambda family: (-sizes[family], family))
    some = (largest[:number] for number in range(len(largest), 0, -1) if sizes[largest[number - 1]] * number >= count)
    return sorted(next(some, largest))
