"""`cairn doctor`, `gc`: what a project stands on, and what it may let go."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli import group, values
from flows.cli.output import print_json

app = group.app()


@app.command(cls=group.Command)
def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="Leave out what reads every kept byte: store, views, workspace.")] = False,
    as_json: values.AsJson = False,
) -> int:
    """Versions, settings, disk, GPU, servers, databases, the DVC remote, locks, runs, and everything that is kept; each
    warning and each error with what mends it. What was read whole and is not what its name says is removed, so that it
    is fetched or made again. No check waits longer than ten seconds for anybody.

    Ends with 0 when nothing is broken (there may be warnings), with 1 when an error was found.

    Examples:
      cairn doctor
      cairn doctor --quick
      cairn doctor --json | jq '.findings[] | select(.severity == "error") | .remedy'
    """
    from dataclasses import asdict

    from flows.doctor import examine, exit_code, place

    found = []
    for one in examine(place(), quick):
        found.append(one)
        if not as_json:
            print(one, flush=True)
    counts = {level: sum(one.severity == level for one in found) for level in ("error", "warning")}
    if as_json:
        print_json({"errors": counts["error"], "warnings": counts["warning"], "findings": [asdict(one) for one in found]})
    else:
        print(f"\n{counts['error']} errors, {counts['warning']} warnings")
    return exit_code(found)


@app.command(cls=group.Command)
def gc(
    yes: Annotated[bool, typer.Option("--yes", help="Delete it; without this nothing is deleted.")] = False,
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Also what interrupted runs would go on from.")] = False,
    unrecorded: Annotated[
        bool, typer.Option("--unrecorded", help="Also stored files that no result of this store has, such as what `dvc pull` fetched.")
    ] = False,
    runs: Annotated[
        int | None, typer.Option(metavar="DAYS", min=1, help="Runs that ended longer ago than that keep nothing any more.")
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(metavar="FOLDER", help="Another checkout that shares CAIRN_HOME: what it names is kept too; may be repeated."),
    ] = None,
    as_json: values.AsJson = False,
) -> int:
    """Kept is what the present params find, what dvc.lock, a .dvc file or params name here or in any commit that git can
    go back to (branches, tags, stashes, DVC's experiments, queued ones too), every registered version, the ledger of
    promotions, every run that is not deleted in MLflow or reports/, what an interrupted run goes on from; and all that
    those were made of. Answers of model servers and files of MLflow are never touched. The rest is listed. While a run
    goes on, --yes is refused; where somebody who may name a result cannot be asked, nothing is deleted.

    `dvc gc` knows nothing of registered versions and runs: it would delete theirs.

    Examples:
      cairn gc
      cairn gc --yes
      cairn gc --runs 90 --json | jq .freed
    """
    from pathlib import Path

    from flows import gc as clearing
    from flows.gc.references import Wish
    from flows.run import open_plan

    plan = open_plan(room=False)
    others = [Path(one).expanduser().resolve() for one in also or ()]
    wish = Wish(unfinished, unrecorded, runs, others)
    with clearing.to_delete(plan, wish) if yes else clearing.to_look_at(plan, wish) as found:
        lost, why = clearing.on_no_remote(plan, found)
        if not as_json:  # said before it is done
            print("\n".join(clearing.lines(plan, found, lost, why)), flush=True)
        if yes:
            clearing.delete(plan, found)
    if as_json:
        print_json(clearing.as_document(found, yes, lost, why))
    elif not found.empty:
        size = f"{found.freed / 1e6:.1f} MB"
        print(f"{size} came free" if yes else f"{size} would come free. Nothing was deleted: with --yes it is deleted.")
    return 0
