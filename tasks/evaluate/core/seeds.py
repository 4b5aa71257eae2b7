"""The random streams of an evaluation, by name: with the seed of the stage they are found again, and its problems drawn again."""

from __future__ import annotations

from tasks.contract.context import seed_of


def of_problems(seed: int, split: str, world: str) -> int:
    """Of the test problems of a world's split. seed: of the stage."""
    return seed_of(seed, "evaluate", split, world)


def of_play(seed: int) -> int:
    """Of all conversations: the same for every model. seed: of the stage."""
    return seed_of(seed, "evaluate", "play")
