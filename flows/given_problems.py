"""Whether the problems that users gave for worlds are enough for the stages that play them, looked at as soon as the worlds are frozen:
before anything is paid.

A room or a method that plays problems says what it lacks: `too_few_given(params, worlds, unseen, seed)` gives a line each.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contract.params import BadInput
from tasks.engine import methods
from tasks.worlds import UNSEEN
from tasks.worlds.api.folder import read_json
from tasks.worlds.api.loading import world_class

if TYPE_CHECKING:
    from tasks.engine.plan import Plan
    from tasks.worlds.api.runtime import World

_passed: set[tuple[str, ...]] = set()
"""Worlds and params that were found good in this process, which asks before each stage."""


def check(plan: Plan, stages: Collection[str], there: Mapping[str, str]) -> None:
    """Raise BadInput when the coming `stages` want more problems than were given. there: step -> identity of its result; nothing is
    said before the worlds are frozen."""
    settings, wrong = plan.settings, list[str]()
    for step in (name for name in settings.road.entering("worlds") if name in there):
        after = settings.road.after(step)
        asking = [
            (stage, where, module, params)
            for stage in stages
            if stage in after
            for where, module, params in settings.parts(stage)
            if hasattr(module, "too_few_given")
        ]
        known = (there[step], *(f"{where} {params} {settings.seed(stage)}" for stage, where, _, params in asking))
        if not asking or known in _passed:
            continue
        seen, unseen = (_with_given(plan.store.view(there[step]) / below) for below in ("", UNSEEN))
        lines = [
            f"{settings.source}: {where}: {line}"
            for stage, where, module, params in asking
            for line in module.too_few_given(
                params, seen, unseen if methods.reads_unseen(settings.room(stage)) else [], settings.seed(stage)
            )
        ]
        wrong += lines
        _passed.update([] if lines else [known])
    if wrong:
        raise BadInput("\n".join(wrong))


def _with_given(folder: Path) -> list[World]:
    """The frozen worlds of a folder whose problems were given."""
    from tasks.worlds.api.frozen import load

    found = []
    for path in sorted(folder.glob("*/world.json")):
        about: Any = read_json(path)
        adapter = getattr(world_class(about["address"], about.get("allow", ())), "FOREIGN", None)
        if adapter is not None and adapter.lines:
            found.append(load(path.parent))
    return found
