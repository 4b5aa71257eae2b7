"""`cairn champion`, `promote`, `rollback`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.cli import group, values
from flows.cli.output import print_json

app = group.app()


@app.command(cls=group.Command)
def champion(
    none: Annotated[bool, typer.Option("--none", help="Decide from now on as if there were no champion.")] = False,
    settle: Annotated[bool, typer.Option("--settle", help="Write params/champion.yaml anew from the ledger.")] = False,
    as_json: values.AsJson = False,
) -> int:
    """The ledger's last word, and the model that the next candidate has to beat (params/champion.yaml, which both drivers read).

    Examples:
      cairn champion
      cairn champion --none       the next candidate meets nobody
      cairn champion --settle     after a merge conflict in params/champion.yaml
    """
    from flows import OUTSIDE, PROJECT, STATE, champion_file
    from flows.ledger import champion as present_champion
    from flows.rollback import forget
    from flows.run import open_plan
    from tasks.contract.params import BadInput
    from tasks.engine.champion import CHAMPION, read

    if OUTSIDE:
        raise BadInput(OUTSIDE)
    if none:
        forget(STATE, PROJECT / CHAMPION)
    if settle and (settled := champion_file.settle(open_plan())):
        print(settled)
    now, standing, differs = present_champion(STATE), read(PROJECT / CHAMPION), champion_file.differs(STATE, PROJECT)
    if as_json:
        print_json({"champion": now, "decisions_meet": standing.champion, "difference": differs or None})
    else:
        print(f"champion: {f'''version {now['version']}, {now['identity']} ({now['event']}: {now['reason']})''' if now else 'none'}")
        print(f"whom decisions meet ({CHAMPION}): {standing.champion or 'nobody'}")
        if differs:
            print(f"{differs}; the next `cairn run` or `cairn champion --settle` writes it anew")
    if none or settle:
        _tell_dvc(open_plan())
    return 0


@app.command(cls=group.Command)
def promote(why: Annotated[str, typer.Option(metavar="TEXT", help="For the ledger.")] = "approved by hand") -> int:
    """Only with promote.approval: manual in the params; otherwise a run promotes by itself. Ends with 0 when the candidate is champion.

    Examples:
      cairn promote --why "reviewed with the team"
    """
    from flows import server_checks
    from flows.promote import promote_candidate
    from flows.run import Run

    server_checks.mlflow()
    with Run.open() as run:
        decision, candidate = _decided(run.plan)
        promote_candidate(run, decision, candidate, approved=why)
        print(f"{run.promotion['outcome']}: {run.promotion['reason']}")
        _tell_dvc(run.plan)
        return 0 if run.promotion["alias"] else 1


@app.command(cls=group.Command)
def rollback(
    why: Annotated[str, typer.Option(metavar="TEXT", help="For the ledger.")],
    to: Annotated[str, typer.Option(metavar="VERSION", help="Another version that was champion (default: the one before).")] = "",
) -> int:
    """The registry's alias moves back, and the next candidate meets that model.

    Examples:
      cairn rollback --why "worse on Mondays"
      cairn rollback --to 3 --why "the last one without the fault"
    """
    from flows import server_checks
    from flows.rollback import rollback as roll_back
    from flows.run import Run

    server_checks.mlflow()
    with Run.open() as run:
        print(f"champion is version {roll_back(run, why, to)}")
        _tell_dvc(run.plan)
    return 0


def _decided(plan: Any) -> tuple[Any, Any]:
    """The decision for the present params and code, and its candidate."""
    from flows.survey import survey
    from tasks.contract.params import BadInput

    there = {step.stage: step.artifact for step in survey(plan)}
    decision, candidate = there.get(plan.settings.road.decision), there.get(plan.settings.road.candidate)
    if not decision:
        raise BadInput("there is no decision for the present params and code; `cairn run` makes one")
    return decision, candidate


def _tell_dvc(plan: Any) -> None:
    """After another champion: evaluate and decide read who it is, and what they found stays right; DVC is told so."""
    from flows.road import bring_up_to_date
    from flows.survey import survey

    for line in bring_up_to_date(plan, {step.stage: step.artifact for step in survey(plan) if step.artifact}):
        print(line)
