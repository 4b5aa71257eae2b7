"""`cairn use`."""

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
            show_default=False,
        ),
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite edits of params/pipeline.yaml (a copy is kept in .cairn/).")
    ] = False,
) -> int:
    """The profile's file becomes params/pipeline.yaml, byte for byte. Edits that are in no profile are not overwritten
    without --force.

    Examples:
      cairn use                   which profiles there are
      cairn use smoke             tiny inputs, a minute or two
      cairn use quickstart        back to what Cairn comes with
    """
    from flows import profiles

    if profile:
        print("\n".join(profiles.switch(profile, force)))
    else:
        print("\n".join(f"{'*' if active else ' '} {name}" for name, active in profiles.all_of_them()))
    return 0
