"""The models of a road by name: which step left one, and the order in which they are shown. A module of its own: a run with nothing to
do prints it, and imports little."""

from __future__ import annotations

from collections.abc import Collection

from tasks.road import ROAD, Road, Step


def left_by(model: str, road: Road = ROAD) -> tuple[Step, str] | None:
    """(step, unit) that left a model; unit is "" for a step's own one. None for a model that the road does not know."""
    for step in road:
        if model == step.checkpoint():
            return step, ""
    units = [step for step in road if model.startswith(f"{step.name}_")]
    longest = max(units, key=lambda step: len(step.name), default=None)
    return (longest, model.removeprefix(f"{longest.name}_")) if longest else None


def place(model: str, road: Road = ROAD) -> tuple[int, bool, str]:
    """The order of the road; of one step its units by name, then its own. What the road does not know comes last."""
    found = left_by(model, road)
    return (road.index(found[0].name), not found[1], model) if found else (len(road.names), False, model)


def is_control(model: str, models: Collection[str], road: Road = ROAD) -> bool:
    """Whether a model is a unit beside its step's own one, which it is held against (sft_unfiltered beside sft)."""
    found = left_by(model, road)
    return bool(found and found[1] and found[0].checkpoint() in models)


def is_step(later: str, earlier: str, models: Collection[str], road: Road = ROAD) -> bool:
    """Whether, of two of the `models`, the later was made from the earlier, or is what that control is held against.

    >>> models = ("base", "sft_unfiltered", "sft", "rl_kiosk", "rl_shop", "merged")
    >>> [is_step(*pair, models) for pair in (("sft", "base"), ("sft", "sft_unfiltered"), ("rl_shop", "sft"), ("merged", "sft"))]
    [True, True, True, True]
    >>> [is_step(*pair, models) for pair in (("merged", "base"), ("sft_unfiltered", "base"), ("rl_shop", "rl_kiosk"))]
    [False, False, False]
    >>> is_step("rl_shop", "sft_unfiltered", models)
    False
    """
    late, early = left_by(later, road), left_by(earlier, road)
    if not late or not early or is_control(later, models, road):
        return False
    if is_control(earlier, models, road):
        return late == (early[0], "")
    return early[0].name in late[0].inputs and (not late[1] or not early[1] or late[1] == early[1])
