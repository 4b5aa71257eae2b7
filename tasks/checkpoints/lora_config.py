"""Whether what an adapter says of itself (adapter_config.json) is what its weights are: who reads the one would play another model than
who reads the other."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.checkpoints.adapters import CONFIG
from tasks.contract.params import BadInput

DEFAULT = 8
"""PEFT's rank and alpha where none is written."""
ALL = "all-linear"
"""PEFT's word for every linear map but the output's."""


def read(folder: Path) -> dict[str, Any]:
    """An adapter's configuration. ValueError for a file that is no JSON object."""
    found = json.loads((folder / CONFIG).read_text("utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{CONFIG} holds no JSON object, but {str(found)[:40]!r}")
    return found


def check(config: Mapping[str, Any], ranks: Mapping[str, int]) -> None:
    """BadInput where a LoRA's configuration contradicts its weights. ranks: linear map, as its base calls it -> rows of its lora_A."""
    for name in ("r", "lora_alpha"):
        _check_positive(name, config.get(name, DEFAULT))
    patterns: dict[str, Mapping[str, Any]] = {}
    for name in ("rank_pattern", "alpha_pattern"):
        if not isinstance(pattern := config.get(name) or {}, Mapping):
            raise BadInput(f"{CONFIG}: {name} = {pattern!r}: allowed is an object, a map's name (a regular expression) -> a number.")
        for key, value in pattern.items():
            _check_positive(f"{name}[{key!r}]", value)
        patterns[name] = pattern
    for linear, rank in sorted(ranks.items()):
        key, said = of_pattern(patterns["rank_pattern"], linear, config.get("r", DEFAULT))
        name = f"rank_pattern[{key!r}]" if key else "r"
        if said != rank:
            raise BadInput(f"{CONFIG}: {name} = {said}, and {linear} has rank {rank}: the file is not that of these weights.")
        if not _is_target(config.get("target_modules"), linear):
            raise BadInput(
                f"{CONFIG}: target_modules = {json.dumps(config['target_modules'])[:120]} does not name {linear}, of which it has "
                "weights: PEFT would leave them out. Write its name there, or take the file of these weights."
            )


def of_pattern(pattern: Mapping[str, Any], linear: str, otherwise: Any) -> tuple[str, Any]:
    """As PEFT looks up a map's rank or alpha: the first key that names it, and its value; ("", otherwise) where none does. A key is a
    regular expression for the end of a name; BadInput for one that is none."""
    for key, value in pattern.items():
        try:
            if re.fullmatch(rf"(.*\.)?({key})", linear):
                return key, value
        except re.error as error:
            raise BadInput(f"{CONFIG}: {key!r} is no regular expression: {error}") from None
    return "", otherwise


def _check_positive(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise BadInput(f"{CONFIG}: {name} = {value!r}: allowed are numbers above 0; with any other the adapter changes nothing.")


def _is_target(targets: Any, linear: str) -> bool:
    """As PEFT chooses its maps: a regular expression for the whole name, or ends of names; None: PEFT's own choice."""
    if targets is None or targets == ALL:
        return True
    if isinstance(targets, str):
        try:
            return re.fullmatch(targets, linear) is not None
        except re.error as error:
            raise BadInput(f"{CONFIG}: target_modules = {targets!r} is no regular expression: {error}") from None
    return any(linear == name or linear.endswith(f".{name}") for name in targets)
