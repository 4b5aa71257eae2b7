"""Chosen and rejected critiques of one trajectory: the best candidate against the worst, by quality."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.critique.core.units import Unit, quality, render

TOO_FEW, TIE, MARGIN = "too_few", "tie", "margin"
"""Why a pair is dropped: fewer than two readable critiques; the same quality; a difference below the margin."""


def pair(trajectory: Mapping[str, Any], candidates: Mapping[str, Sequence[Unit]], margin: float, rng: random.Random) -> dict[str, Any]:
    """The best against the worst candidate by Q, as a row of PREFERENCE; kept when Q differs, and by at least `margin`.

    candidates: units by source. Among equals `rng` chooses, so that no source is favoured by its name.
    """
    names = sorted(candidates)
    rng.shuffle(names)
    worth = {name: quality(candidates[name]) for name in names}
    row: dict[str, Any] = {
        "pair_id": f"{trajectory['traj_id']}-pair",
        "traj_id": trajectory["traj_id"],
        "world": trajectory["world"],
        "lineage": list(trajectory["lineage"]),
    }
    if len(names) < 2:
        return {**row, "kept": False, "drop_reason": TOO_FEW}
    high = max(names, key=lambda name: worth[name])
    low = min((name for name in names if name != high), key=lambda name: worth[name])
    gap = worth[high] - worth[low]
    reason = TIE if gap == 0 else MARGIN if gap < margin else ""
    return {
        **row,
        **_side("chosen", high, candidates[high], worth[high]),
        **_side("rejected", low, candidates[low], worth[low]),
        "kept": not reason,
        "drop_reason": reason,
    }


def _side(side: str, source: str, units: Sequence[Unit], worth: float) -> dict[str, Any]:
    return {side: render(units), f"{side}_critic": source, f"q_{side}": worth, f"n_units_{side}": len(units)}
