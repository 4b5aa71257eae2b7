"""What a decision will be able to see, said before the evaluation plays the problems that it needs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tasks.contract.params import BadInput
from tasks.engine.champion import CHAMPION, read
from tasks.engine.plan import Plan
from tasks.engine.settings import Settings
from tasks.engine.together import planned
from tasks.worlds.api.loading import world_class
from tasks.worlds.api.problem_making import BY_WRITES


def check(plan: Plan, stages: Collection[str], decides: bool = True) -> list[tuple[str, str]]:
    """(decision, line) of how small a fall the decision behind each evaluation among `stages` can see; BadInput where that will make it
    refuse.

    A method of room decide tells by `foresee(step, families, champion)`. stages: those that are to run. decides: whether a decision is
    among what may run.
    """
    settings = plan.settings
    steps, told = planned(settings), list[tuple[str, str]]()
    for name in settings.road.entering("decide"):
        evaluation = steps[name].reading("evaluate")
        module = next((one for _, one, _ in settings.parts(name) if hasattr(one, "foresee")), None)
        if evaluation is None or evaluation.name not in stages or module is None:
            continue
        champion = read(settings.project / CHAMPION).champion is not None
        holds, text = module.foresee(steps[name], _families(settings), champion)
        if text:
            told.append((name, text))
        if decides and not holds:
            raise BadInput(f"{settings.source}: {name}: {text}")
    return told


def _families(settings: Settings) -> list[int]:
    """How many families each world has that is trained on; of one whose problems are proven as many as they can be sorted into."""
    found = []
    for step in settings.road.entering("worlds"):
        params: Any = settings.params(step)
        classes = [world_class(one, params.allow) for one in getattr(params, "modules", ())]
        found += [len(getattr(one, "FAMILIES", ())) or len(BY_WRITES) for one in classes]
    return found
