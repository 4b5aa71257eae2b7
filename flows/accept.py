"""`cairn accept`: a stage's result stays although its key changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flows import road
from flows.run import open_plan
from flows.survey import survey
from tasks.contract.params import BadInput
from tasks.engine.explain import last, remember
from tasks.engine.files import read_json, write_text
from tasks.engine.key import changed
from tasks.engine.locks import using
from tasks.road import ROAD

if TYPE_CHECKING:
    from tasks.engine.plan import Plan


def accept_results(stages: Sequence[str], why: str) -> list[str]:
    """Bind each stage's present key to the result it had, in the road's order, all or none; returns what was done, in lines.

    Raises BadInput for a stage that is none, never ran, or whose result or inputs are gone; nothing is bound then.
    """
    for name in stages:
        road.check_stage(name, f"stage {name!r}: no such stage.")
    plan = open_plan()
    with using(plan.store.state):
        return _accept_all(plan, sorted({*stages}, key=ROAD.index), why)


def _accept_all(plan: Plan, names: Sequence[str], why: str) -> list[str]:
    steps = {step.stage: step for step in survey(plan)}
    there = {name for name, step in steps.items() if step.artifact} | set(names)
    for name in names:
        if lacking := [one for one in plan.stages[name].inputs if one not in there]:
            raise BadInput(f"{name}: its input {lacking[0]} would run. Accept or run that stage first.")
        if not steps[name].artifact and not plan.store.has(_last(plan, name)["identity"]):
            raise BadInput(f"{name}: the bytes of its last result are gone; it has to run")
    lines = [_accept(plan, name, why) for name in names]
    return [*lines, *road.bring_up_to_date(plan, {one.stage: one.artifact for one in survey(plan) if one.artifact})]


def _accept(plan: Plan, name: str, why: str) -> str:
    step = next(step for step in survey(plan) if step.stage == name)
    if step.artifact:
        return f"{name} is cached already; there is nothing to accept"
    if step.job is None:
        raise BadInput(f"{name}: {'; '.join(step.reasons)}. Accept or run that stage first.")
    old = _last(plan, name)
    moved = list(changed(old["parts"], step.job.key.parts))
    plan.store.record(step.job.key, old["identity"], {"accepted": why, "changed": moved, "figures": old.get("figures", {})})
    remember(plan, step.job)
    path = plan.store.state / "accepted.jsonl"
    entry = {"stage": name, "why": why, "changed": moved, "identity": old["identity"]}
    write_text(path, (path.read_text() if path.exists() else "") + json.dumps(entry) + "\n")
    return f"{name}: {old['identity'][:12]} accepted although {'; '.join(moved)}"


def _last(plan: Plan, name: str) -> dict[str, Any]:
    """The record of a stage's last result. Raises BadInput when there is none."""
    noted = read_json(last(plan, name))
    if noted is None:
        raise BadInput(f"{name} never ran here, so there is no result to accept")
    entry: dict[str, Any] | None = plan.store.entry(str(noted.get("key")))
    if entry is None:
        raise BadInput(f"{name}: the record of its last result is gone; it has to run")
    return entry
