"""Names, streets and ids from which the built-in worlds make their data. All invented; ids are short, to be copied easily."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

FIRST = (
    "Anna", "Ben", "Clara", "David", "Emma", "Frank", "Greta", "Hugo", "Iris", "Jonas", "Karin", "Leo", "Marta", "Nils", "Olga",
    "Paul", "Rosa", "Sven", "Tina", "Victor", "Wilma", "Yusuf", "Zoe", "Amir",
)  # fmt: skip
LAST = (
    "Berg", "Costa", "Dahl", "Evans", "Fischer", "Garcia", "Hansen", "Ito", "Jensen", "Klein", "Lopez", "Meyer", "Novak", "Olsen",
    "Patel", "Quinn", "Rossi", "Silva", "Tanaka", "Ueda", "Vogel", "Weber", "Young", "Zhang",
)  # fmt: skip
STREETS = ("Oak Street", "Mill Road", "Park Lane", "Lake Drive", "Hill Street", "Rose Lane", "Main Road", "Bay Drive")


def numbers(rng: Random, count: int, digits: int) -> list[int]:
    """`count` different numbers without a leading zero, of at least `digits` digits; more when so many do not fit sparsely."""
    while count * 2 > 9 * 10 ** (digits - 1):
        digits += 1
    return rng.sample(range(10 ** (digits - 1), 10**digits), count)


def people(rng: Random, count: int) -> Iterator[tuple[str, str]]:
    """(full name, zip) pairs, all different. Names repeat when there are more people than names; then the zip tells."""
    full = [f"{first} {last}" for first in FIRST for last in LAST]
    rng.shuffle(full)
    zips = numbers(rng, count, 5)
    for place, zip_code in enumerate(zips):
        yield full[place % len(full)], str(zip_code)


def address(rng: Random) -> str:
    """A street with a number."""
    return f"{rng.randint(2, 98)} {rng.choice(STREETS)}"
