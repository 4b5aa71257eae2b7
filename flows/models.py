"""The order in which a road's models are shown. A module of its own: a run with nothing to do prints it, and imports little."""

from __future__ import annotations


def place(model: str) -> tuple[float, str]:
    """The order of the road: base, the control of sft, sft, specialists by name, merged."""
    return {"base": 0, "sft_unfiltered": 0.5, "sft": 1, "merged": 3}.get(model, 2), model
