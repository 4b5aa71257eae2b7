"""The file that says how an MCP server becomes a world: how to reach it, what its tools do, how its state is dumped and restored.

    command: [python, server.py]        # or  url: http://127.0.0.1:8000/mcp
    writes: [cancel_order]
    ends: [call_a_person]
    dump: export_state                  # a tool that answers the whole state as JSON, or {command: [argv...]} that prints it
    restore: import_state               # a tool that takes it, or {command: [argv...]} that reads it
    disposable: true                    # of a url: it is there to be changed; else nothing but reads is ever called there
    conventions: {hand_over: call_a_person, confirmed_by: nobody}       # `tasks.worlds.adapters.convention_keys`
    real: {url: https://shop/mcp, dump: export_state}   # for `cairn serve --with-tools`; by default the server above

The real one is called and never set back. Its dump is optional: predicates of the policy that look at the state need it.

Commands are lists of words, never lines for a shell, and run in the file's folder; a first word `python` is the Python that runs
Cairn. Every server process that Cairn starts, and every command about it, gets an empty folder of its own in $CAIRN_SEAT: a server
that keeps its state in a file must keep it there, since several of them run side by side.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit, urlunsplit

import yaml
from pydantic import Field

from tasks.contract.params import BadInput, Params, read_yaml, validate
from tasks.worlds.adapters.convention_keys import ConventionKeys


class Command(Params):
    """A program that dumps or restores the state of one server."""

    command: list[str] = Field(min_length=1, description="program and arguments")


class RealServerFile(Params):
    """The server that `cairn serve --with-tools` calls: the shop itself, where the file's own server is for training."""

    command: list[str] = Field([], description="program and arguments of a server that speaks over stdin and stdout")
    url: str = Field("", description="of a server that speaks streamable HTTP")
    pass_env: list[str] = Field([], description="names of environment variables that the server is given")
    dump: str | Command | None = Field(None, description="tool or command that gives the state as JSON; predicates look at it")


class ServerFile(Params):
    """What stands in the file."""

    command: list[str] = Field([], description="program and arguments of a server that speaks over stdin and stdout")
    url: str = Field("", description="of a server that speaks streamable HTTP; it must be for Cairn alone")
    disposable: bool = Field(False, description="a server behind a url may be changed and set back by every run and check")
    pass_env: list[str] = Field([], description="names of environment variables that the server is given")
    dump: str | Command = Field(description="tool or command that gives the state as JSON")
    restore: str | Command = Field(description="tool or command that takes the state as JSON")
    restore_argument: str = Field("", description="argument of the restore tool; by default its only one")
    start: str = Field("", description="JSON file with the state to start from; by default what a fresh server dumps")
    tools: list[str] | None = Field(None, description="tools that are offered; by default all but dump and restore")
    writes: list[str] = Field([], description="tools that change the state")
    ends: list[str] = Field([], description="tools that end the conversation")
    produces: dict[str, list[str]] = Field({}, description="tool -> types of ids in its answer; by default from its output schema")
    leave_out: list[str] = Field([], description="patterns of keys of the state that do not count, such as logs and clocks")
    conventions: ConventionKeys | None = Field(None, description="how people are identified, what hands over, who confirms")
    users: str = Field("", description="dotted path of the state's table of users; found by default")
    error_key: str = Field("", description="an answer that is an object with something under this key is a refusal")
    errors_begin: list[Annotated[str, Field(min_length=1)]] = Field(
        [], description="text that begins so is a refusal, of servers that do not flag their errors"
    )
    real: RealServerFile | None = Field(None, description="the server for `cairn serve --with-tools`; by default this one")
    servers: int = Field(1, ge=1, le=64, description="most servers at once in one process; HTTP has the one")
    check_reads: bool = Field(True, description="dump after tools that do not write, to see that they did not")
    call_seconds: float = Field(30.0, gt=0, le=3600, description="longest a call may take")
    start_seconds: float = Field(60.0, gt=0, le=3600, description="longest a server may take to start")


def read(path: Path) -> ServerFile:
    """The file, checked. Raises BadInput with file, key and what is allowed."""
    values = read_yaml(path, lenient=True)
    if not isinstance(values, dict):
        raise BadInput(f"{path}: must be keys and values, see tasks/worlds/adapters/server_file.py.")
    about = validate(ServerFile, values, str(path))
    _check_reached(path, "", about)
    if about.real is not None:
        _check_reached(path, "real: ", about.real)
    if about.url and not about.start:
        raise BadInput(
            f"{path}: start is missing. A server that runs may be in any state; write the one to start from into a JSON file."
        )
    if about.url and about.servers > 1:
        raise BadInput(f"{path}: servers = {about.servers}: behind a url there is one server. Leave servers out.")
    return about


def _check_reached(path: Path, where: str, one: ServerFile | RealServerFile) -> None:
    if bool(one.command) == bool(one.url):
        raise BadInput(f"{path}: {where}give command (a server of your own) or url (one that runs), and not both.")
    if one.url and not one.url.startswith(("http://", "https://")):
        raise BadInput(f"{path}: {where}url = {one.url!r} must begin with http:// or https://.")


def real(about: ServerFile) -> ServerFile:
    """The file as it is for the server that stands under `real`; as it is where nothing stands there."""
    if about.real is None:
        return about
    mine = about.real
    return about.model_copy(update={"command": mine.command, "url": mine.url, "pass_env": mine.pass_env, "dump": mine.dump})


def lines(path: Path) -> dict[str, int]:
    """Key -> the line of the file in which it stands, for messages."""
    node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    return {key.value: key.start_mark.line + 1 for key, _ in node.value} if node is not None else {}


def without_secrets(url: str) -> str:
    """A url in messages, which agents and their users read too: without user, password and query, which may be secret.

    >>> without_secrets("https://ada:secret@shop.example/mcp?key=secret")
    'https://shop.example/mcp'
    """
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def argv(command: list[str]) -> list[str]:
    """The command as it is run."""
    return [sys.executable, *command[1:]] if command[0] == "python" else list(command)
