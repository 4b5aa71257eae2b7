"""`cairn claims run`, `table`, `show`, `status`, `check`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli import group, values
from flows.cli.output import print_json

app = group.app()
claims = group.app()
app.add_typer(claims, name="claims", help="", callback=lambda: None)


def _slugs() -> list[str]:
    from flows.papers import names

    return list(names())


Slug = Annotated[
    str, typer.Argument(metavar="PAPER", help="Its slug (`cairn claims status`).", autocompletion=values.completing(_slugs))
]


@claims.command(cls=group.Command, short_help="measure what is missing of papers' claims")
def run(
    papers: Annotated[
        list[str],
        typer.Argument(metavar="PAPER...", help="Their slugs (`cairn claims status`).", autocompletion=values.completing(_slugs)),
    ],
    seeds: Annotated[int, typer.Option(metavar="N", help="How many, from 0 on; 0: as many as the claim's rule says.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes, to see whether it runs; no verdict.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Measure anew what was made by other code or params.")] = False,
) -> int:
    """Measure what is missing of papers' claims: every arm with every seed. What was measured is kept as it ends, in
    flows/papers/results, and is not measured again, also on a fresh clone. A cell that fails is marked so, and the others go on.

    Examples:
      cairn claims run otr
      cairn claims run otr --seeds 1 --quick
      cairn claims run apigen_mt breadcrumbs
    """
    from flows.claims.command import run_all

    return run_all(papers, seeds, quick, again)


@claims.command(cls=group.Command, short_help="each paper: verdict, and whether its results are current, older or missing")
def status(as_json: values.AsJson = False) -> int:
    """Each paper: its verdict, and whether its results are current, older than the code (with the files that differ), or missing.

    Examples:
      cairn claims status
      cairn claims status --json | jq '.[].state'
    """
    from flows.claims import claim_text, command

    found = command.status()
    if as_json:
        print_json(found)
    else:
        print("\n".join(claim_text.status(found)))
    return 0


@claims.command(cls=group.Command, short_help="what was measured of a claim, arm by arm and seed by seed")
def table(paper: Slug, as_json: values.AsJson = False) -> int:
    """What was measured of a paper's claim: each metric of each arm with each seed.

    Examples:
      cairn claims table otr
    """
    from flows.claims import claim_text, command

    found = command.table(paper)
    if as_json:
        print_json(found)
    else:
        print("\n".join(claim_text.table(found)))
    return 0


@claims.command(cls=group.Command, short_help="a claim, its rule, and what came of it")
def show(paper: Slug) -> int:
    """A paper's claim, the rule that stands in its file, the differences with their intervals, and the verdict, when all is measured.

    Examples:
      cairn claims show otr
    """
    from flows.claims.command import show_lines

    print("\n".join(show_lines(paper)))
    return 0


@claims.command(cls=group.Command, short_help="measure one seed of a claim anew, and say whether its sign holds")
def check(
    paper: Slug,
    seed: Annotated[int, typer.Option(metavar="N", help="Which.")] = 0,
) -> int:
    """Measure treatment and baseline of a claim anew with one seed, keep nothing, and say whether their difference has the sign that
    the results file has. Ends with 1 when it has not.

    Examples:
      cairn claims check otr
      cairn claims check otr --seed 3
    """
    from flows.claims.command import check_seed

    return check_seed(paper, seed)
