"""What to declare for states that should be one and are not: clocks, generated ids, numbers with noise."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable

NOISE = 1e-6
"""Share of a number up to which a difference is taken for noise; ours."""
TIMES = 9e8
"""Numbers from here on may be seconds since 1970, which differ by little and are no noise."""
_LINE = re.compile(r"([-+]) (.*?): (.*)", re.DOTALL)
_PLACES = re.compile(r"\[\d+\]")


def declaration(one: str, other: str) -> str:
    """The arguments of `from_object` (or keys of a server's file) that make two differences equal, each the lines of `text_diff` from
    the same start. Names that were made anew are told apart, since nothing can be declared for them."""
    here, there = _values(one), _values(other)
    both = [place for place in here if place in there and here[place] != there[place]]
    new = sorted({_path(place)[:-1] for place in here.keys() ^ there.keys()})
    noisy = {place: step for place in both if (step := _noise(here[place], there[place])) is not None}
    said = []
    if left := _patterns(place for place in both if place not in noisy):
        said.append(f"leave_out=({', '.join(map(json.dumps, left))},)")
    if noisy:
        steps = {pattern: max(noisy.values()) for pattern in _patterns(noisy)}
        said.append(f"rounded={{{', '.join(f'{json.dumps(pattern)}: {step:g}' for pattern, step in steps.items())}}}")
    told = f"Write {', '.join(said)}." if said else ""
    if new:
        names = ", ".join(".".join(path) or "the state" for path in new)
        told += (
            f" What stands under {names} is named or counted anew each time: count its keys up, or derive them from the arguments or "
            "the state."
        )
    return told.strip() or "Take clocks and random numbers out."


def between(diff: str) -> str:
    """The same for two states, by the lines of `text_diff` from one to the other."""
    lines = diff.splitlines()
    return declaration(*("\n".join(f"+{line[1:]}" for line in lines if line.startswith(sign)) for sign in "-+"))


def _values(lines: str) -> dict[str, str]:
    """Place -> what stands there now, "" for what is gone."""
    found: dict[str, str] = {}
    for line in lines.splitlines():
        if parts := _LINE.fullmatch(line):
            sign, place, value = parts.groups()
            found[place] = value if sign == "+" else found.get(place, "")
    return found


def _path(place: str) -> tuple[str, ...]:
    return tuple(_PLACES.sub("", place).split("."))


def _noise(one: str, other: str) -> float | None:
    """The step at which two numbers are one; None for what is no noise."""
    try:
        first, second = float(one), float(other)
    except ValueError:
        return None
    apart = abs(first - second)
    if not 0 < apart <= NOISE * max(abs(first), abs(second)) or abs(first) >= TIMES:
        return None
    return float(10.0 ** math.ceil(math.log10(apart) + 2))


def _patterns(places: Iterable[str]) -> list[str]:
    """The places as patterns: names in which those that end alike differ become `*`."""
    groups: dict[tuple[int, str], list[tuple[str, ...]]] = {}
    for path in sorted({_path(place) for place in places}):
        groups.setdefault((len(path), path[-1]), []).append(path)
    return [".".join(names[0] if len(set(names)) == 1 else "*" for names in zip(*group, strict=True)) for group in groups.values()]
