"""`cairn use`, `cairn upgrade`, `cairn migrate`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli import group, values

app = group.app()


@app.command(cls=group.Command)
def use(
    profile: Annotated[
        str,
        typer.Argument(
            metavar="[PROFILE]",
            help="Name of a file in params/profiles; without one, list them (* marks the one in use).",
            autocompletion=values.completing(values.profiles),
        ),
    ] = "",
    model: Annotated[
        str,
        typer.Option(metavar="CHECKPOINT", help="The checkpoint to begin with: a folder, a GGUF file, hub:OWNER/NAME@COMMIT, ..."),
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite edits of params/pipeline.yaml (a copy is kept in .cairn/).")
    ] = False,
) -> int:
    """The profile's file becomes params/pipeline.yaml, byte for byte but for the worlds and the model's name that a project of your
    own says in project.yaml. Edits that are in no profile are not overwritten without --force. With --model, what follows from the
    model's files is filled in: its place and identity, chat format, dtype, tokens of a pass, rows, memory for keys and values, lengths.

    Examples:
      cairn use                   which profiles there are
      cairn use smoke             tiny inputs, a minute or two
      cairn use quickstart        back to what Cairn comes with
      cairn use real_cpu --model SmolLM2-135M-Instruct.gguf
    """
    from flows import profiles
    from tasks.contract.params import BadInput

    if profile:
        print("\n".join(profiles.switch(profile, force, model)))
    elif model:
        raise BadInput("--model goes with a profile: cairn use PROFILE --model CHECKPOINT")
    else:
        for name, active in profiles.all_of_them():
            print(f"{'*' if active else ' '} {name:<17} {profiles.about(name)}".rstrip())
    return 0


@app.command(cls=group.Command)
def upgrade(
    to: Annotated[str, typer.Option(metavar="REF", help="A tag, branch or commit of Cairn (default: its main branch).")] = "",
    go_on: Annotated[bool, typer.Option("--continue", help="Finish an upgrade whose conflicts you have solved.")] = False,
) -> int:
    """Fetch Cairn from git's remote `cairn`, merge it into this project, migrate the params, and say what changed and whether `make
    setup` is due. Conflicts are left to you in a merge that can be continued or aborted; it ends with 1 then.

    Examples:
      cairn upgrade
      cairn upgrade --to v0.2
      cairn upgrade --continue
    """
    from flows import OUTSIDE, PROJECT
    from flows import upgrade as upgrading
    from tasks.contract.params import BadInput

    if OUTSIDE:
        raise BadInput(OUTSIDE)
    if to and go_on:
        raise BadInput("--to begins an upgrade, --continue finishes one; give one of them.")
    return upgrading.go_on(PROJECT) if go_on else upgrading.upgrade(PROJECT, to)


@app.command(cls=group.Command)
def migrate(
    check: Annotated[bool, typer.Option("--check", help="Only say what would change; ends with 1 when something would.")] = False,
    since: Annotated[
        str,
        typer.Option(metavar="COMMIT", help="Also take over what the profile of params/pipeline.yaml changed since a commit of Cairn."),
    ] = "",
) -> int:
    """Move what stands in params/pipeline.yaml and params/profiles/ as earlier versions of Cairn had it to its present place, comments
    kept. What today's Cairn does not know stays and is said; it ends with 1 then.

    Examples:
      cairn migrate --check
      cairn migrate
    """
    from flows import OUTSIDE, PROJECT
    from flows.migrate import report
    from tasks.contract.params import BadInput

    if OUTSIDE:
        raise BadInput(OUTSIDE)
    return report(PROJECT, check, since)
