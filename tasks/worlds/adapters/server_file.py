"""The file that says how an MCP server becomes a world. One line is enough:

    command: [npx, -y, "@modelcontextprotocol/server-memory"]     # or  url: https://shop.example/mcp

Commands are lists of words, never lines for a shell, and run in the file's folder; a first word `python` is `python:` of the file, else
the Python that runs Cairn. Each server process has an empty folder of its own, which `{seat}` names in the words of `command` and the
values of `env` ($CAIRN_SEAT too): a server that keeps files must keep them there, since several run side by side. `${NAME}` is a
variable of the environment, for secrets: neither its value nor the folder's path is ever in an answer, a message or a row.

    command: [python, server.py, "{seat}/shop.db"]
    python: ../venv312/bin/python       # an interpreter of the world's own
    env: {API_KEY: "${SHOP_KEY}", LOG: "{seat}/log"}
    fixture: shop.db                    # a file, or a folder's content, that is copied into {seat} before a server starts
    writes: [cancel_order]              # by default the tools that the server itself says are not read-only
    ends: [call_a_person]
    disposable: true                    # of a url: it is there to be changed; else nothing but reads is ever called there
    conventions: {hand_over: call_a_person, confirmed_by: nobody}       # `tasks.worlds.adapters.convention_keys`

What its state is, one of four:

    dump: export_state                  # a tool that answers the whole state as JSON, or {command: [argv...]} that prints it, with
    restore: import_state               #   a tool that takes it, or {command: [argv...]} that reads it
    reads: [list_orders, {tool: get_user, arguments: {id: u1}}]     # calls whose answers together are the state
    files: [shop.db]                    # files or folders in {seat}, which Cairn copies: SQLite, JSON, or any other
    (none of them)                      # the state is not compared: problems are graded by required calls and outputs alone

Where nothing restores a state, a server of its own is started anew and the calls that wrote are made again; behind a url that cannot
be, so all conversations are in the one state that the server has.

    real: {url: https://shop/mcp, dump: export_state}   # for `cairn serve --with-tools`; by default the server above

The real one is called and never set back. Its dump is optional: predicates of the policy that look at the state need it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit, urlunsplit

import yaml
from pydantic import Field

from tasks.contract.params import BadInput, Params, read_yaml, validate
from tasks.worlds.adapters.convention_keys import ConventionKeys

MOST_SERVERS = 64
"""Servers of one process where the file does not say; ours: as many as conversations that are commonly in play."""


class Command(Params):
    """A program that dumps or restores the state of one server."""

    command: list[str] = Field(min_length=1, description="program and arguments")


class RealServerFile(Params):
    """The server that `cairn serve --with-tools` calls: the shop itself, where the file's own server is for training."""

    command: list[str] = Field([], description="program and arguments of a server that speaks over stdin and stdout")
    url: str = Field("", description="of a server that speaks streamable HTTP")
    env: dict[str, str] = Field({}, description="environment of the server; {seat} and ${NAME} are filled in")
    headers: dict[str, str] = Field({}, description="HTTP headers of every request to the url; ${NAME} is filled in")
    pass_env: list[str] = Field([], description="names of environment variables that the server is given")
    dump: str | Command | None = Field(None, description="tool or command that gives the state as JSON; predicates look at it")


class ReadCall(Params):
    """A call whose answer is a part of the state."""

    tool: str = Field(min_length=1, description="a tool that only reads")
    arguments: dict[str, Any] = Field({}, description="its arguments")


class ServerFile(Params):
    """What stands in the file."""

    command: list[str] = Field([], description="program and arguments of a server that speaks over stdin and stdout")
    url: str = Field("", description="of a server that speaks streamable HTTP; it must be for Cairn alone")
    disposable: bool = Field(False, description="a server behind a url may be changed and set back by every run and check")
    python: str = Field("", description="program that stands for a first word `python`; by default the one that runs Cairn")
    env: dict[str, str] = Field({}, description="environment of the server and of commands about it; {seat} and ${NAME} are filled in")
    headers: dict[str, str] = Field({}, description="HTTP headers of every request to the url; ${NAME} is filled in")
    pass_env: list[str] = Field([], description="names of environment variables that the server is given")
    fixture: str = Field("", description="file, or folder whose content, is copied into {seat} before a server starts")
    dump: str | Command | None = Field(None, description="tool or command that gives the state as JSON")
    restore: str | Command | None = Field(None, description="tool or command that takes the state as JSON")
    reads: list[str | ReadCall] = Field([], description="calls of tools whose answers together are the state")
    files: list[Annotated[str, Field(min_length=1)]] = Field([], description="files or folders in {seat} that are the state")
    restart: bool | None = Field(
        None, description="start a server anew to restore files; by default where one of them is no SQLite file, which it may have read"
    )
    restore_argument: str = Field("", description="argument of the restore tool; by default its only one")
    start: str = Field("", description="JSON file with the state to start from; by default what a fresh server dumps")
    tools: list[str] | None = Field(None, description="tools that are offered; by default all but dump and restore")
    writes: list[str] | None = Field(None, description="tools that change the state; by default those that the server says may")
    ends: list[str] = Field([], description="tools that end the conversation")
    produces: dict[str, list[str]] = Field({}, description="tool -> types of ids in its answer; by default from its output schema")
    leave_out: list[str] = Field([], description="patterns of keys of the state that do not count, such as logs and clocks")
    rounded: dict[str, float] = Field({}, description="pattern of keys -> step; numbers there count as the nearest multiple of it")
    conventions: ConventionKeys | None = Field(None, description="how people are identified, what hands over, who confirms")
    users: str = Field("", description="dotted path of the state's table of users; found by default")
    error_key: str = Field("", description="an answer that is an object with something under this key is a refusal")
    errors_begin: list[Annotated[str, Field(min_length=1)]] = Field(
        [], description="text that begins so is a refusal, of servers that do not flag their errors"
    )
    errors_match: list[Annotated[str, Field(min_length=1)]] = Field(
        [], description="regular expressions; an answer in whose text (or JSON) one is found is a refusal"
    )
    real: RealServerFile | None = Field(None, description="the server for `cairn serve --with-tools`; by default this one")
    servers: int | None = Field(
        None, ge=1, le=1024, description=f"most servers at once in one process; by default {MOST_SERVERS}, started as they are needed"
    )
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
    _check_state(path, about)
    for pattern in about.errors_match:
        try:
            re.compile(pattern)
        except re.error as error:
            raise BadInput(f"{path}: errors_match = {pattern!r} is no regular expression: {error}.") from None
    return about


def _check_state(path: Path, about: ServerFile) -> None:
    """Raise BadInput for ways of reading and restoring the state that exclude each other, or that this server cannot have."""
    given = [name for name in ("dump", "reads", "files") if getattr(about, name)]
    if len(given) > 1:
        raise BadInput(f"{path}: {' and '.join(given)}: the state is read in one way. Leave all but one out.")
    if about.restore and not about.dump:
        raise BadInput(f"{path}: restore takes what dump gives; name a dump, or leave restore out.")
    if about.start and not about.restore:
        raise BadInput(f"{path}: start = {about.start!r} is restored before anything is played; name a restore, or leave start out.")
    if about.url and (about.files or about.fixture):
        raise BadInput(
            f"{path}: files and fixture lie in {{seat}}, and a server behind a url has none. Give dump and restore, or neither."
        )
    if about.url and (about.dump or about.reads) and not about.restore:
        raise BadInput(
            f"{path}: a server behind a url is not started anew, so what is read of its state could not be brought back. Name restore "
            "too, or leave dump and reads out: problems are then graded by required calls and outputs."
        )
    if about.url and about.restore and not about.start:
        raise BadInput(
            f"{path}: start is missing. A server that runs may be in any state; write the one to start from into a JSON file."
        )
    if about.url and about.restore and about.servers is not None and about.servers > 1:
        raise BadInput(f"{path}: servers = {about.servers}: behind a url there is one server. Leave servers out.")
    if about.fixture and not (path.parent / about.fixture).exists():
        raise BadInput(f"{path}: fixture = {about.fixture!r}: there is no such file or folder in {path.parent}.")
    for name in about.files:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BadInput(f"{path}: files = {name!r}: write it as it lies in {{seat}}, such as shop.db or data/orders.json.")
    if about.restart is not None and not about.files:
        raise BadInput(f"{path}: restart says how files are restored; give files, or leave it out.")


def _check_reached(path: Path, where: str, one: ServerFile | RealServerFile) -> None:
    if bool(one.command) == bool(one.url):
        raise BadInput(f"{path}: {where}give command (a server of your own) or url (one that runs), and not both.")
    if one.url and not one.url.startswith(("http://", "https://", "${")):
        raise BadInput(f"{path}: {where}url = {one.url!r} must begin with http:// or https://.")


def real(about: ServerFile) -> ServerFile:
    """The file as it is for the server that stands under `real`; as it is where nothing stands there."""
    if about.real is None:
        return about
    mine = about.real
    return about.model_copy(update={**dict(mine), "fixture": ""})


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


def argv(command: list[str], python: str, folder: Path) -> list[str]:
    """The command as it is run. python: the file's; one with a slash is a path as seen from the file's folder."""
    own = str(folder / python) if "/" in python else python
    return [own or sys.executable, *command[1:]] if command[0] == "python" else list(command)
