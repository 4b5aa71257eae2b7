"""`cairn init`: the command line of making a project."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli import group

app = group.app()
AROUND = "Around an API that exists"
"""Panel of the help."""
SERVER, MODEL = "http://127.0.0.1:8000/v1", "teacher"
"""Who plays the roles until the user says it: as in profile endpoint_teacher."""


@app.command(cls=group.Command)
def init(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Where; it must be empty or not exist yet.")],
    world: Annotated[str, typer.Option(metavar="NAME", help="Package of the world (default: the folder's name).")] = "",
    cls: Annotated[str, typer.Option("--class", metavar="CLASS", help="Class of the world (default: after the package).")] = "",
    origin: Annotated[
        str,
        typer.Option(
            "--from", metavar="API", help="mcp.yaml, openapi.json or MODULE:OBJECT: a world around this.", rich_help_panel=AROUND
        ),
    ] = "",
    policy: Annotated[
        str, typer.Option(metavar="FILE", help="Text of the policy that the agent must keep.", rich_help_panel=AROUND)
    ] = "",
    url: Annotated[
        str, typer.Option(metavar="URL", help="Where the HTTP service is, if not where its description says.", rich_help_panel=AROUND)
    ] = "",
    disposable: Annotated[
        bool, typer.Option("--disposable", help="The HTTP service may be changed by every run and check.", rich_help_panel=AROUND)
    ] = False,
    operations: Annotated[
        str,
        typer.Option(metavar="NAMES", help="Operations that become tools: ids or 'GET /path', with commas.", rich_help_panel=AROUND),
    ] = "",
    server: Annotated[
        str, typer.Option(metavar="URL", help="OpenAI-compatible server of the model that plays all roles.", rich_help_panel=AROUND)
    ] = SERVER,
    model: Annotated[str, typer.Option(metavar="NAME", help="The model's name there.", rich_help_panel=AROUND)] = MODEL,
    key_env: Annotated[
        str, typer.Option(metavar="NAME", help="Environment variable that holds the server's key.", rich_help_panel=AROUND)
    ] = "",
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Set up its environment and run every stage on tiny inputs (minutes).")
    ] = False,
) -> int:
    """The project is a clone of Cairn with a branch of its own and a world: a small one that works, to be changed piece by piece, or
    with --from one around an API that exists. `cairn upgrade` merges a later Cairn into it.

    Examples:
      cairn init ../bookshop                            a project with a world in a package `bookshop`
      cairn init ../shop --world tea_shop --class Tea   other names for package and class
      cairn init ../bank --from bank.py:Bank            around a Python class, function or object
      cairn init ../notes --from mcp.yaml --policy policy.md --model gpt-oss-20b
      cairn init ../orders --from openapi.json --url http://127.0.0.1:8000
      cairn init ../orders --from openapi.json --disposable --operations "getOrder,POST /refunds"
    """
    import shlex
    import subprocess
    from pathlib import Path

    from flows.init import create
    from flows.own_api.command import begun, look, player_of, policy_of
    from tasks.contract.params import BadInput

    place = Path(folder).resolve()
    chosen = tuple(filter(None, map(str.strip, operations.split(","))))
    if operations and not chosen:
        raise BadInput(f"--operations {operations!r}: names none. Give ids or 'GET /path', with commas between them.")
    if not origin and (policy or url or disposable or chosen or (server, model, key_env) != (SERVER, MODEL, "")):
        raise BadInput("--policy, --url, --disposable, --operations, --server, --model and --key-env go with --from API.")
    if origin:
        from flows.own_api.api import Wish

        api, player = look(origin, Wish(url, disposable, chosen)), player_of(server, model, key_env)
        address, notes = create(place, world, cls, api, policy_of(policy), player)
        notes = [*begun(api, address, bool(policy), player), *notes]
    else:
        address, notes = create(place, world, cls)
    print("\n".join([f"{place}: a project with the world {address}", *notes, ""]))
    if smoke:
        return subprocess.run(["make", "--no-print-directory", "smoke"], cwd=place, check=False).returncode
    print(f"cd {shlex.quote(folder)}")
    print("make smoke    # the environment, then every stage on tiny inputs" + (", a stub in all roles" if origin else ""))
    print("make run      # to a promoted agent")
    return 0
