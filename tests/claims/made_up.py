"""A claim and cells of it, for tests: an arm `masked` against `plain`, with `random_mask` as the mechanism control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from flows.claims.declaration import Claim, Comparison, Effect, Mechanism
from flows.claims.results import Cell, figures

CLAIM = Claim(
    statement="A mask that follows the largest changes keeps more of the old tasks than plain training.",
    treatment="masked",
    baseline="plain",
    effect=Effect("kept", "higher", smallest=0.05),
    mechanisms=(Mechanism("random_mask", lacks="its mask is drawn at random"),),
    sanity=(Comparison("the base knows the old tasks", "base", 0.8, "kept", "higher"),),
    seeds=6,
)
MACHINE = {"processor": "abacus", "cores": "2"}
CODE = {"flows/papers/made_up.py": "11", "tasks/sft/plain.py": "22"}


def claim(**changes: Any) -> Claim:
    return replace(CLAIM, **changes)


def cell(arm: str, seed: int, values: Mapping[str, Sequence[float]], of: Claim = CLAIM, **more: Any) -> Cell:
    return Cell(arm, seed, **{"seconds": 1.5, "code": CODE, "machine": MACHINE, "figures": figures(of, arm, values), **more})
