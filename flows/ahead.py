"""What would be found out only after hours, looked at before the first stage runs: by `cairn run`, and by the flow itself, which a
schedule or a form of Prefect's may have started."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from flows import gate_reach, given_problems, reserve
from flows.own_api.written import UNWRITTEN, is_unwritten
from flows.source_checks import check_sources
from flows.survey import Outlook
from tasks.contract.params import BadInput
from tasks.engine.champion import CHAMPION, read
from tasks.engine.plan import Plan
from tasks.engine.settings import Settings
from tasks.worlds.api.loading import world_class

_passed: set[tuple[str, ...]] = set()
"""Runs whose imports were found good in this process, which asks twice: see above."""


def check_ahead(plan: Plan, part: Collection[str], steps: Sequence[Outlook]) -> list[tuple[str, str]]:
    """Raise BadInput for what would end a run late. part: the stages that may run. Returns (stage, line) for people: worlds whose
    policy nobody wrote yet, and what its decisions will be able to see."""
    todo = [step.stage for step in steps if step.artifact is None and step.stage in part]
    if not todo:
        return []
    if (run := (plan.run_key, *todo)) not in _passed:
        plan.check_closures(todo)
        _passed.add(run)
    check_champion(plan, part, steps)
    there = {step.stage: step.artifact.identity for step in steps if step.artifact}
    given_problems.check(plan, todo, there)
    if plan.settings.road.judged in todo:
        reserve.check(plan, there)
    told = [*unwritten(plan.settings), *gate_reach.check(plan, todo, plan.settings.road.decision in part)]
    check_sources(plan, todo)
    return told


def unwritten(settings: Settings) -> Iterator[tuple[str, str]]:
    """(stage, line) of each world whose policy is still a placeholder."""
    for step in settings.road.entering("worlds"):
        params: Any = settings.params(step)
        for address in getattr(params, "modules", ()):
            cls = world_class(address, params.allow)
            if is_unwritten(str(getattr(cls, "POLICY", ""))):
                yield step, f"world {getattr(cls, 'NAME', address)}: {UNWRITTEN}"


def check_champion(plan: Plan, part: Collection[str], steps: Sequence[Outlook]) -> None:
    """The champion has to play the gate: its bytes must be there before hours of training, not after."""
    standing = read(plan.settings.project / CHAMPION)
    there, road = {step.stage: step.artifact for step in steps}, plan.settings.road
    candidate = there.get(road.candidate)
    met = standing.opponent(candidate.identity) if candidate else standing.champion
    playing = [name for name in road.entering("evaluate") if road.candidate in road[name].inputs and name in part]
    waiting = [name for name in playing if there.get(name) is None]
    if met and waiting and not plan.store.has(met):
        raise BadInput(
            f"the champion {met} must play the gate, and its bytes are not in the store. `dvc pull` may bring them; "
            "`cairn champion --none` decides from now on as if there were no champion."
        )
    anchor = standing.held_to(candidate.identity) if candidate else standing.anchor
    wanted = [name for name in waiting if getattr(plan.settings.params(name), "anchor", "none") != "none"]
    if anchor and wanted and not plan.store.has(anchor):
        raise BadInput(
            f"the best champion so far, {anchor} (the anchor in {CHAMPION}), must play the gate, and its bytes are not in the store. "
            f"`dvc pull` may bring them; {wanted[0]}.{plan.settings.method(wanted[0])}.anchor: none compares with the champion alone."
        )
