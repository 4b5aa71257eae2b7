"""`cairn champion`, `promote`, `rollback`, `promotions`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli import group, values
from flows.cli.output import print_json

app = group.app()


@app.command(cls=group.Command)
def champion(
    none: Annotated[bool, typer.Option("--none", help="Decide from now on as if there were no champion.")] = False,
    settle: Annotated[
        bool, typer.Option("--settle", help="Do with a moved alias what the params say; write params/champion.yaml anew.")
    ] = False,
    as_json: values.AsJson = False,
) -> int:
    """The ledger's last word, and the model that the next candidate has to beat (params/champion.yaml, which both drivers read).

    Examples:
      cairn champion
      cairn champion --none       the next candidate meets nobody
      cairn champion --settle     after a merge conflict in params/champion.yaml
    """
    from flows import champion_file
    from flows.approval import told_to_dvc
    from flows.ledger import Ledger
    from flows.moved_alias import settle_alias, told_of_alias
    from flows.rollback import forget
    from flows.run import open_plan
    from tasks.engine.champion import CHAMPION, read

    plan = open_plan()
    if none:
        forget(plan)
    for line in (settle_alias(plan), champion_file.settle(plan)) if settle else ():
        if line:
            print(line)
    now, standing, differs = Ledger.of(plan).champion(), read(plan.settings.project / CHAMPION), champion_file.differs(plan)
    moved = told_of_alias(plan)
    if as_json:
        print_json({"champion": now, "decisions_meet": standing.champion, "difference": differs or None, "alias_moved": moved or None})
    else:
        print(f"champion: {f'''version {now['version']}, {now['identity']} ({now['event']}: {now['reason']})''' if now else 'none'}")
        print(f"whom decisions meet ({CHAMPION}): {standing.champion or 'nobody'}")
        if moved:
            print(moved)
        if differs:
            print(f"{differs}; the next `cairn run` or `cairn champion --settle` writes it anew")
    for line in told_to_dvc(plan) if none or settle else ():
        print(line)
    return 0


@app.command(cls=group.Command)
def promote(why: Annotated[str, typer.Option(metavar="TEXT", help="For the ledger.")] = "approved by hand") -> int:
    """Only with promote.approval: manual in the params; otherwise a run promotes by itself. Ends with 0 when the candidate is champion.

    Examples:
      cairn promote --why "reviewed with the team"
    """
    from flows.approval import approve

    promotion, lines = approve(why)
    print(f"{promotion['outcome']}: {promotion['reason']}")
    for line in lines:
        print(line)
    return 0 if promotion["alias"] else 1


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
    from flows.approval import told_to_dvc
    from flows.rollback import rollback as roll_back
    from flows.run import Run

    server_checks.mlflow()
    with Run.open() as run:
        print(f"champion is version {roll_back(run, why, to)}")
        for line in told_to_dvc(run.plan):
            print(line)
    return 0


@app.command(cls=group.Command)
def promotions(as_json: values.AsJson = False) -> int:
    """The ledger, oldest first: who moved the alias, when, from which version to which, why, and on which evidence.

    Each record has a hash over itself and the one before. A ledger in which a record was changed or is missing is not shown: the
    command ends with 1 and names the record.

    Examples:
      cairn promotions
      cairn promotions --json | jq '.records[-1]'
    """
    from flows.ledger import Ledger
    from flows.promotions_text import lines
    from flows.run import open_plan

    ledger = Ledger.of(open_plan())
    records = ledger.records()
    if as_json:
        shown = [{"number": one.number, "hash": one.hash, **one.entry} for one in records]
        print_json({"ledger": str(ledger.database), "records": shown})
    else:
        print("\n".join(lines(records, str(ledger.database))))
    return 0
