"""`cairn init`: the command line of making a project."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli import group

app = group.app()


@app.command(cls=group.Command)
def init(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where; it must be empty or not exist yet.")],
    world: Annotated[str, typer.Option(metavar="NAME", help="Package of the world (default: the folder's name).")] = "",
    cls: Annotated[str, typer.Option("--class", metavar="CLASS", help="Class of the world (default: after the package).")] = "",
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Set up its environment and run every stage on tiny inputs (minutes).")
    ] = False,
) -> int:
    """The project is a clone of Cairn with a branch of its own and a small world that works, to be changed piece by piece. `cairn
    upgrade` merges a later Cairn into it.

    Examples:
      cairn init ../bookshop                            a project with a world in a package `bookshop`
      cairn init ../shop --world tea_shop --class Tea   other names for package and class
    """
    import shlex
    import subprocess
    from pathlib import Path

    from flows.init import create

    place = Path(folder).resolve()
    address, notes = create(place, world, cls)
    print("\n".join([f"{place}: a project with the world {address}", *notes, ""]))
    if smoke:
        return subprocess.run(["make", "--no-print-directory", "smoke"], cwd=place, check=False).returncode
    print(f"cd {shlex.quote(folder)}")
    print("make smoke    # the environment, then every stage on tiny inputs\nmake run      # to a promoted agent")
    return 0
