"""`cairn world new`, `draft`, `check`, `play`, `export`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli import group, values
from flows.cli.output import print_json
from tasks.contract.problem import SPLITS

ELSEWHERE = ("verifiers", "trl", "nemo_gym", "ms_swift", "tau2")
"""Frameworks that a world can be written for (`flows.exports.elsewhere.folder.TARGETS`)."""

app = group.app()
world = group.app()
app.add_typer(world, name="world", help="", callback=lambda: None)

Address = Annotated[
    str, typer.Argument(metavar="MODULE:CLASS", help="Such as my_shop.world:Shop.", autocompletion=values.completing(values.worlds))
]
Size = Annotated[int, typer.Option(metavar="N", help="Users of the world, 3 or more.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Root of its tables and problems, 0 or more.")]
Folder = Annotated[str, typer.Option(metavar="DIR", help="Where the package lies, if not in the project.")]


@world.command(cls=group.Command, short_help="write a small world that works, with its tests")
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the package, such as my_shop.")],
    cls: Annotated[str, typer.Option("--class", metavar="CLASS", help="Of the world (default: after the package).")] = "",
    folder: Folder = "",
) -> int:
    """Write a small world that works, with its tests: a lending library under your names, to be changed piece by piece.

    Examples:
      cairn world new my_shop
      cairn world new my_shop --class Shop --folder ../shop
    """
    from flows.worlds.command import write_new

    print("\n".join(write_new(name, cls, folder)))
    return 0


@world.command(cls=group.Command, short_help="let a model write a world's problems, phrases, scripts and tests of its policy")
def draft(
    address: Address,
    role: Annotated[str, typer.Option(metavar="NAME", help="Role of params/pipeline.yaml whose model writes.")] = "generator",
    tries: Annotated[int, typer.Option(metavar="N", help="Drafts at most; each is proven.")] = 4,
    problems: Annotated[int, typer.Option(metavar="N", help="Problems of each split that a draft is proven on, 1 or more.")] = 30,
    replace: Annotated[bool, typer.Option("--replace", help="Write over the files of an earlier draft.")] = False,
    size: Size = 60,
    seed: Seed = 0,
    folder: Folder = "",
) -> int:
    """Let a model write a world's problems, phrases, scripts and tests of its policy, out of its tools, tables and policy. It
    writes data, no code; `cairn world check` proves each draft, and what fails goes back to it with the remedy. What holds is
    put beside the world as two new files, for you to read; nothing else is changed. Ends with 1 when no draft holds.

    Examples:
      cairn world draft my_shop.world:Shop
      cairn world draft my_shop.world:Shop --role judge --tries 8
    """
    from flows.worlds.command import draft_world

    return 0 if draft_world(address, size, seed, problems, folder, role, tries, replace) else 1


@world.command(cls=group.Command, short_help="prove a world: tools, determinism, state, policy, problems")
def check(
    address: Annotated[
        str,
        typer.Argument(
            metavar="[MODULE:CLASS]",
            help="Such as my_shop.world:Shop; without one, the worlds of params/pipeline.yaml.",
            autocompletion=values.completing(values.worlds),
        ),
    ] = "",
    problems: Annotated[int, typer.Option(metavar="N", help="Problems of each split that are looked at, 1 or more.")] = 105,
    size: Size = 60,
    seed: Seed = 0,
    folder: Folder = "",
    as_json: values.AsJson = False,
) -> int:
    """Prove a world: tools, determinism, state, policy, problems. Each fault is named with its file and line, and what
    to do. Ends with 1 when a check fails.

    Examples:
      cairn world check
      cairn world check my_shop.world:Shop
      cairn world check my_shop.world:Shop --json | jq '.checks[] | select(.ok | not)'
    """
    from flows.worlds.command import active, prove
    from flows.worlds.report import as_document

    reports = [prove(one, size, seed, problems, folder) for one in ([address] if address else active())]
    if as_json:
        documents = [as_document(report) for report in reports]
        print_json(documents[0] if address else documents)
    else:
        print("\n".join(report.text() for report in reports))
    return 0 if all(report.ok for report in reports) else 1


@world.command(cls=group.Command, short_help="take the agent's or the user's seat in one conversation")
def play(
    address: Address,
    seat: Annotated[str, typer.Option(metavar="NAME", help="Yours: agent or user.", **values.one_of(("agent", "user")))] = "agent",
    family: Annotated[
        str, typer.Option(metavar="NAME", help="Family of the problem (default: drawn).", autocompletion=values.families)
    ] = "",
    split: Annotated[
        str, typer.Option(metavar="NAME", help=f"Split of the problem: {', '.join(SPLITS)}.", **values.one_of(SPLITS))
    ] = "train",
    size: Size = 60,
    seed: Seed = 0,
    folder: Folder = "",
) -> int:
    """Take the agent's or the user's seat in one conversation; a script has the other one. At the end it is graded as any other.

    Examples:
      cairn world play my_shop.world:Shop
      cairn world play my_shop.world:Shop --seat user --seed 3
    """
    from flows.worlds.command import play_by_hand

    play_by_hand(address, size, seed, folder, seat, split, family)
    return 0


@world.command(cls=group.Command, short_help="write a world as an environment of another framework, with its grading")
def export(
    address: Address,
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder to write; must not exist yet, or be empty.")],
    to: Annotated[str, typer.Option("--to", metavar="NAME", help=f"Of {', '.join(ELSEWHERE)}.", **values.one_of(ELSEWHERE))],
    problems: Annotated[int, typer.Option(metavar="N", help="Problems of each split that are drawn, 1 or more.")] = 100,
    proven: Annotated[
        list[str] | None, typer.Option("--from", metavar="FILE", help="Blueprints or problems to take instead; may be repeated.")
    ] = None,
    size: Size = 60,
    seed: Seed = 0,
    folder: Folder = "",
) -> int:
    """Write a world as an environment that another framework trains or evaluates in: its problems, its simulated user, and
    Cairn's own grading as the reward. The README in OUT has the command, and says what could not be expressed there.

    Examples:
      cairn world export my_shop.world:Shop out/ --to verifiers
      cairn world export my_shop.world:Shop out/ --to ms_swift --from data/generate/blueprints.parquet
    """
    from flows.worlds.command import export_elsewhere

    print("\n".join(export_elsewhere(address, out, to, problems, proven or [], size, seed, folder)))
    return 0
