"""`cairn trace` and `cairn compare`: where something comes from, and in what two of them differ."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from flows.cli import group, values
from flows.cli.output import print_json

app = group.app()
NAME = (
    "An alias (champion), a version (3), a run's id, a result (its identity, or the beginning that tables print), a row's id, or a "
    "commit, branch or experiment."
)


@app.command(cls=group.Command)
def trace(
    name: Annotated[str, typer.Argument(metavar="NAME", help=NAME)],
    html: Annotated[
        str, typer.Option("--html", metavar="FILE", help="Write it as one self-contained page, with params and talks.")
    ] = "",
    as_json: values.AsJson = False,
) -> int:
    """Down to decision, evaluation, merge, checkpoints, rows, conversations, blueprints, votes, params and commit, as the
    records of the store and MLflow say it; of a row also which models learned from it. What no record says is listed as
    missing, with where it would come from.

    Examples:
      cairn trace champion
      cairn trace 3 --html trail.html
      cairn trace airline_1fc9dff9b617
      cairn trace workspace --json | jq '.trail[] | select(.missing != [])'
    """
    from pathlib import Path

    from flows.preview import page_of
    from flows.trace.find import find
    from flows.trace.stages import here
    from flows.trace.text import lines, write_page

    found = find(here(), name)
    if html:
        write_page(found, Path(html))
        print(f"written: {html}")
    if as_json:
        print_json(found.document())
    elif not html:
        print("\n".join(lines(found, page_of(sys.stdout))))
    return 0


@app.command(cls=group.Command)
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help=NAME)],
    second: Annotated[str, typer.Argument(metavar="B", help="The other one, named alike.")],
    as_json: values.AsJson = False,
) -> int:
    """Params, inputs and code that differ, stage by stage; then the figures of all models that both evaluated, paired by
    problem where both played the same test problems.

    Examples:
      cairn compare champion workspace
      cairn compare HEAD workspace
      cairn compare 3 4 --json | jq .figures
    """
    from dataclasses import asdict

    from flows.compare import compare as made
    from flows.compare import lines
    from flows.trace.find import find
    from flows.trace.stages import here

    known = here()
    found = made(known, find(known, first), find(known, second))
    if as_json:
        print_json(asdict(found))
    else:
        print("\n".join(lines(found)))
    return 0
