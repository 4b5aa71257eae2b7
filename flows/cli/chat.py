"""`cairn chat check`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli import group, values
from flows.cli.output import print_json

app = group.app()
chat = group.app()
app.add_typer(chat, name="chat", help="", callback=lambda: None)


@chat.command(cls=group.Command, short_help="how a checkpoint writes conversations, proven or refused")
def check(
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Of a checkpoint or a tokenizer; or artifact:<identity>, models:/<name>@<alias>.")
    ],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="auto: as its template writes tools; hermes: tools as text, for templates without.",
            **values.one_of(("auto", "hermes")),
        ),
    ] = "auto",
    thinking: Annotated[bool, typer.Option("--thinking", help="Leave room for thoughts, if the template does both.")] = False,
    count: Annotated[int, typer.Option("-n", metavar="N", help="Random conversations of the proof, 1 or more.")] = 1000,
    write: Annotated[bool, typer.Option("--write", help="Write chat_format.json and the proven template into the folder.")] = False,
    as_json: values.AsJson = False,
) -> int:
    """Find how a checkpoint's tokenizer writes conversations, prove it on random ones, and show one with what is trained
    in colour. Ends with 2 and the property that fails when it cannot be used.

    Examples:
      cairn chat check models/instruct
      cairn chat check models/smollm2 --format hermes --write
      cairn chat check models/instruct --json | jq .form
    """
    from flows.chat_check import as_document, check_folder, check_writable, print_check, write_into

    if write:
        check_writable(folder)
    found = check_folder(folder, form, thinking, count)
    if write:
        write_into(found)
    if as_json:
        print_json(as_document(found))
    else:
        print_check(found, write)
    return 0
