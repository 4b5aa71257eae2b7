"""A person approves what the gates allow: by `cairn promote`, or by a run of the deployment `promote`."""

from __future__ import annotations

from typing import Any

from tasks.contract.params import BadInput
from tasks.engine.artifact import Artifact
from tasks.engine.plan import Plan


def approve(why: str) -> tuple[dict[str, Any], list[str]]:
    """Carry the present decision out, for this reason: (outcome, reason, version and alias as in summary.json, lines of what was
    brought up to date). BadInput when there is no decision for the present params and code."""
    from flows import server_checks
    from flows.promote import promote_candidate
    from flows.run import Run

    server_checks.mlflow()
    with Run.open() as run:
        decision, candidate = present_decision(run.plan)
        promote_candidate(run, decision, candidate, approved=why)
        return run.promotion, told_to_dvc(run.plan)


def refuse(decision: Artifact, who_and_why: str) -> None:
    """A person says no to a decision: the registry's version keeps who and why, and stands as challenger no more."""
    from flows import server_checks
    from flows.promote import turn_down
    from flows.run import Run

    server_checks.mlflow()
    with Run.open() as run:
        turn_down(run, decision, who_and_why)


def present_decision(plan: Plan) -> tuple[Artifact, Artifact | None]:
    """The decision for the present params and code, and its candidate."""
    from flows.survey import survey

    there = {step.stage: step.artifact for step in survey(plan)}
    decision, candidate = there.get(plan.settings.road.decision), there.get(plan.settings.road.candidate)
    if not decision:
        raise BadInput("there is no decision for the present params and code; `cairn run` makes one")
    return decision, candidate


def told_to_dvc(plan: Plan) -> list[str]:
    """After another champion: evaluate and decide read who it is, and what they found stays right; DVC is told so. Returns lines."""
    from flows.road import bring_up_to_date
    from flows.survey import survey

    return bring_up_to_date(plan, {step.stage: step.artifact for step in survey(plan) if step.artifact})
