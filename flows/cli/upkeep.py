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
