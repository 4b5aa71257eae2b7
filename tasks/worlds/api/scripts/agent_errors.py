"""What the scripted agent's systematic errors are made of (`tasks.contract.scripts.COMMON_ERRORS`)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tasks.contract.params import BadInput, nearest


def check_errors(errors: Mapping[str, float], known: Mapping[str, str]) -> None:
    """Raise BadInput for an unknown error or a rate outside [0, 1]."""
    for name, rate in errors.items():
        if name not in known:
            raise BadInput(f"agent error {name!r} is unknown.{nearest(name, known)} Known: {', '.join(known)}.")
        if not 0.0 <= rate <= 1.0:
            raise BadInput(f"agent error {name} = {rate!r}: a rate lies between 0 and 1.")


def with_another_id(arguments: Mapping[str, Any], answers: Iterable[Any]) -> dict[str, Any]:
    """The arguments with another id in place of the last one: one of its kind that an answer held, else two digits swapped. As they
    are where none is a letter and digits."""
    ids = {name: value for name, value in arguments.items() if re.fullmatch(r"[A-Z]\d+", str(value))}
    if not ids:
        return dict(arguments)
    name, value = list(ids.items())[-1]
    seen = " ".join(json.dumps(answer) for answer in answers)
    others = [other for other in re.findall(rf"\b{value[0]}\d+\b", seen) if other not in ids.values()]
    return {**arguments, name: others[0] if others else _swapped(value)}


def _swapped(value: str) -> str:
    """The id with its last two different neighbouring digits swapped, or with its last digit changed when all are alike."""
    for place in range(len(value) - 1, 1, -1):
        if value[place] != value[place - 1]:
            return value[: place - 1] + value[place] + value[place - 1] + value[place + 1 :]
    return value[:-1] + str((int(value[-1]) + 1) % 10)
