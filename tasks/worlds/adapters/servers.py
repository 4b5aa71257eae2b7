"""Worlds out of MCP servers: their tools are the tools, what they dump is the state.

    class Shop(from_mcp(Path(__file__).with_name("mcp.yaml"), name="shop", policy=POLICY)):
        ...

A call takes a server, restores the fork's state in it unless it holds it already, runs the tool and dumps. Costs, with a small state
and a server on the same machine: some milliseconds for each of the three, and a second or two to start a server. With as many
`servers` as there are conversations in play, restoring falls away; with one server, forks take turns in it, and each call pays for
all three. A server behind a url cannot be trusted to hold what it was left with, so there every call restores first, and the
processes of one machine take turns by a lock.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.contract.params import BadInput, nearest
from tasks.contract.problem import Kind
from tasks.contract.values import whole_text
from tasks.worlds.adapters import server_file
from tasks.worlds.adapters.adapted import Choice, adapted
from tasks.worlds.adapters.answers import Answer, refusal
from tasks.worlds.adapters.connection import ToolFailed, short
from tasks.worlds.adapters.foreign_state import Real, Saved, SourceFailed
from tasks.worlds.adapters.plain_data import NotPlain, View
from tasks.worlds.adapters.real import RealServer
from tasks.worlds.adapters.schema_dialects import Read, Unreadable, read
from tasks.worlds.adapters.schemas import tool_of_schema, unmet
from tasks.worlds.adapters.server_file import Command, ServerFile, argv
from tasks.worlds.adapters.server_pool import Seat, Seats
from tasks.worlds.api.places import location
from tasks.worlds.api.state import Base, canonical_json
from tasks.worlds.api.tools import Refused, Tool

START = "start"
_NO_REASON = "the server says that the call failed, and does not say why"


def from_mcp(file: Path | str, *, name: str, policy: str, problems_file: Path | str | None = None) -> type[Any]:
    """A world class over the MCP server that `file` describes (`tasks.worlds.adapters.server_file`). No server is started yet.

    problems_file: problems as JSON lines (`tasks.worlds.adapters.problem_file`). There are no scripted humans: the role needs a model.
    Raises BadInput for a file that says too little or too much; the world's building raises it for a server that does not answer.
    """
    path = Path(file).resolve()
    about = server_file.read(path)
    source = Servers(path, about)
    made = adapted(
        source,
        name=name,
        policy=policy,
        users=about.users,
        problems_file=problems_file,
        writes=about.writes,
        where=str(path),
        conventions=about.conventions.declared() if about.conventions else None,
    )
    made.WAITS = True
    return made


class Servers:
    """A `Source` over the servers of one file."""

    def __init__(self, path: Path, server: ServerFile) -> None:
        self._path, self._server, self._view = path, server, View(tuple(server.leave_out))
        self._seats, self._lines = Seats(path, server), server_file.lines(path)
        self._started: tuple[Base, Saved] | None = None

    # --- the source --------------------------------------------------------------------------------------------------------

    def tools(self) -> Mapping[str, Tool]:
        """The tools that are offered, by name. Raises BadInput for a server that cannot say them."""
        return self._tools

    def place(self, name: str) -> str:
        """Where the file says how the server is reached: the tool's own code may lie anywhere."""
        return location(str(self._path), self._lines[self._reached])

    @property
    def _reached(self) -> str:
        return "url" if self._server.url else "command"

    @functools.cached_property
    def _listed(self) -> dict[str, dict[str, Any]]:
        """Everything that the server has, by name."""
        with self._plainly(self._reached) as seat:
            return {tool["name"]: tool for tool in seat.connection.tools()}

    @functools.cached_property
    def _tools(self) -> Mapping[str, Tool]:
        server, listed = self._server, self._listed
        for word in ("dump", "restore"):
            name = getattr(server, word)
            if isinstance(name, str) and name not in listed:
                known = ", ".join(listed) or "none"
                raise BadInput(f"{self._path}: {word} names {name!r}.{nearest(name, listed)} Tools of the server: {known}.")
        if isinstance(server.restore, str):
            _ = self._restoring
        own = (server.dump, server.restore) if server.tools is None else ()
        made = {tool: tuple(kinds) for tool, kinds in server.produces.items()}
        asked = None if server.tools is None else tuple(server.tools)
        choice = Choice(asked, tuple(server.writes), tuple(server.ends), made, str(self._path))
        tools: dict[str, Tool] = {}
        wrong: list[str] = []
        for name in choice.names(name for name in listed if name not in own):
            tool, produced = listed[name], made.get(name, _produced(listed[name]["output"]))
            where = f"tool {name!r} of {self._path}"
            try:
                made_of = tool_of_schema(name, tool["description"], tool["input"], choice.kind(name), produced, where)
                tools[name] = replace(made_of, notes=(*made_of.notes, *self._unchecked(name)))
            except BadInput as error:
                wrong.append(str(error))
        if wrong:
            raise BadInput("\n".join(wrong))
        _ = self._fresh
        return tools

    def _unchecked(self, name: str) -> tuple[str, ...]:
        """What is not checked about a tool's answers."""
        promised = self._promised.get(name)
        if isinstance(promised, str):
            return (f"its answers are not checked, since its output schema cannot be used: {promised}",)
        return tuple(f"in its output schema {note}" for note in promised.notes) if promised is not None else ()

    @functools.cached_property
    def _promised(self) -> Mapping[str, Read | str]:
        """Tool -> its output schema, or why answers cannot be checked with it."""
        found: dict[str, Read | str] = {}
        for name, tool in self._listed.items():
            if tool["output"] is not None:
                try:
                    found[name] = read(tool["output"])
                except Unreadable as error:
                    found[name] = str(error)
        return found

    @functools.cached_property
    def _fresh(self) -> str:
        """What a server dumps in which nothing was played: tools are asked for before anything is."""
        with self._plainly("dump") as seat:
            return self.dumped(seat, self._server.dump)

    def tables(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The start, frozen with the world: later plays begin there, whatever a server would begin with."""
        if self._server.start:
            place = self._path.parent / self._server.start
            try:
                state = json.loads(place.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise BadInput(f"{self._path}: start = {self._server.start!r}: {place} is no JSON file ({error}).") from None
        else:
            self.tools()
            state = json.loads(self._fresh)
        return {START: {"dump": {"state": state}}}

    def start(self, base: Base) -> Saved:
        """The frozen start."""
        if self._started is None or self._started[0] is not base:
            self._started = base, self.saved(json.dumps(base.tables[START]["dump"]["state"], ensure_ascii=False))
        return self._started[1]

    def call(self, saved: Saved, name: str, arguments: dict[str, Any], kind: Kind | None) -> tuple[Any, Saved]:
        """Run a tool on a server in this state."""
        with self._seats.use(saved.token) as seat:
            untouched = bool(self.protected(name))  # then it is as it is, and only reads come here
            if seat.holds != saved.token and not untouched:
                self._restore(seat, saved.token)
            seat.holds = None  # until it is known what the tool has left, also when it fails
            try:
                said, failure = self.read_answer(name, seat.connection.call(name, arguments))
            except ToolFailed as error:
                said, failure = None, str(error)
            after = saved
            if not failure and not untouched:
                after = self._after(seat, saved, kind)
                seat.holds = after.token
        if failure:  # the tool's alone: the server goes on
            raise SourceFailed(f"tool {name!r} of the MCP server of {short(self._path)}: {failure}. Mend the tool.")
        return said, after

    def offered(self) -> dict[str, dict[str, Any]]:
        """The tools that are offered as the server lists them."""
        return {name: self._listed[name] for name in self.tools()}

    def protected(self, name: str) -> str:
        """A server behind a url may be anybody's; one that was started here is ours."""
        if not self._server.url or self._server.disposable:
            return ""
        where = server_file.without_secrets(self._server.url)
        return (
            f"it may change the server at {where}, which {short(self._path)} does not declare disposable. Write 'disposable: true' "
            "there if nobody minds, or give the command of a server of your own."
        )

    def real(self) -> Real:
        """The server that stands under `real`, or the file's own, as it is found."""
        return RealServer(self, server_file.real(self._server), self._path)

    def _after(self, seat: Seat, saved: Saved, kind: Kind | None) -> Saved:
        """The state that a tool has left in a server."""
        if kind not in (None, "write") and not self._server.check_reads:
            return saved
        token = self.dumped(seat, self._server.dump)
        return saved if token == saved.token else self.saved(token)

    def read_answer(self, name: str, answer: Answer) -> tuple[Any, str]:
        """What an agent reads, and what is wrong with it. Raises Refused when the answer is that the call failed."""
        said = answer.readable()
        reason = self._refused(said) or self._refused(answer.structured)
        if answer.failed or reason:
            raise Refused(reason or _text(said) or _NO_REASON)
        promised = self._promised.get(name)
        return said, unmet(promised, answer.structured) if isinstance(promised, Read) else ""

    def _refused(self, result: Any) -> str:
        return refusal(result, self._server.error_key, self._server.errors_begin)

    def saved(self, token: str) -> Saved:
        """A state that was dumped."""
        try:
            return Saved(token, canonical_json(self._view.plain(json.loads(token))))
        except NotPlain as error:
            raise SourceFailed(f"the state of {short(self._path)}: {error}") from None

    @contextlib.contextmanager
    def _plainly(self, key: str) -> Iterator[Seat]:
        """A server before anything is played, when its failure is the user's to mend, at this key of the file."""
        try:
            with self._seats.use("") as seat:
                yield seat
        except (SourceFailed, Refused) as error:
            raise BadInput(" ".join([f"{self._path}:{self._lines[key]}: {error}", *getattr(error, "__notes__", ())])) from None

    # --- dump and restore --------------------------------------------------------------------------------------------------

    def dumped(self, seat: Seat, dump: str | Command) -> str:
        """The state in a server as JSON. Keys keep their order: a tool's answer may show it."""
        what = f"dump of {short(self._path)} ({' '.join(dump.command) if isinstance(dump, Command) else f'tool {dump!r}'})"
        try:
            text = self._ran(dump, seat, "") if isinstance(dump, Command) else _one_text(_answer(seat, dump, {}))
            value = json.loads(text) if isinstance(text, str) else text
            return whole_text(json.dumps(value, ensure_ascii=False, allow_nan=False))
        except (Refused, ToolFailed) as error:
            raise SourceFailed(f"{what}: refused: {error}. It must work in every state.") from None
        except (ValueError, RecursionError) as error:
            raise SourceFailed(
                f"{what}: gave what is no JSON ({error}): {str(text)[:200]!r}. It must give the whole state as JSON."
            ) from None

    def _restore(self, seat: Seat, token: str) -> None:
        restore = self._server.restore
        if isinstance(restore, Command):
            self._ran(restore, seat, token)
            return
        argument, is_text = self._restoring
        try:
            said = _answer(seat, restore, {argument: token if is_text else json.loads(token)}).readable()
            if reason := self._refused(said):
                raise Refused(reason)
        except (Refused, ToolFailed) as error:
            raise SourceFailed(
                f"restore of {short(self._path)} (tool {restore!r}): refused: {error}. It must take what dump gives."
            ) from None

    @functools.cached_property
    def _restoring(self) -> tuple[str, bool]:
        """The restore tool's argument, and whether it takes the state as text."""
        arguments = self._listed[str(self._server.restore)]["input"].get("properties") or {}
        named = self._server.restore_argument
        if named not in arguments and (named or len(arguments) != 1):
            known = ", ".join(arguments) or "none"
            raise BadInput(
                f"{self._path}: restore_argument = {named!r}: tool {self._server.restore!r} has the arguments {known}; name the one "
                "that takes the state."
            )
        name = named or next(iter(arguments))
        return name, arguments[name].get("type") == "string"

    def _ran(self, command: Command, seat: Seat, stdin: str) -> str:
        """What a dump or restore command prints. Raises SourceFailed when it fails."""
        environment = {**_BARE, **seat.connection.environment()}
        try:
            done = subprocess.run(
                argv(command.command),
                input=stdin,
                cwd=self._path.parent,
                env=environment,
                capture_output=True,
                text=True,
                timeout=self._server.call_seconds,
                check=False,
            )
        except (OSError, UnicodeDecodeError, subprocess.TimeoutExpired) as error:
            raise SourceFailed(f"{short(self._path)}: command {' '.join(command.command)!r}: {error}") from None
        if done.returncode:
            last = " ".join(done.stderr.split())[-200:]
            raise SourceFailed(f"{short(self._path)}: command {' '.join(command.command)!r} ended with {done.returncode}: {last}")
        return done.stdout


_BARE = {name: os.environ[name] for name in ("HOME", "PATH", "USER", "LANG") if name in os.environ}


def _answer(seat: Seat, name: str, arguments: dict[str, Any]) -> Answer:
    """What a tool gives when it works; raises Refused when it says that it does not."""
    answer = seat.connection.call(name, arguments)
    if answer.failed:
        raise Refused(_text(answer.readable()) or _NO_REASON)
    return answer


def _text(result: Any) -> str:
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)


def _one_text(answer: Answer) -> Any:
    """The dump in an answer: its one text, unless that is words about the JSON value beside it. Lists stand under "result" there."""
    value = answer.structured
    if len(answer.texts) == 1 and (value is None or _is_json(answer.texts[0])):
        return answer.texts[0]
    return value["result"] if isinstance(value, dict) and set(value) == {"result"} else value


def _is_json(text: str) -> bool:
    with contextlib.suppress(ValueError, RecursionError):
        json.loads(text)
        return True
    return False


def _produced(schema: Any) -> tuple[str, ...]:
    """What an answer holds, by its output schema; "result" is how servers wrap what is no object."""
    return tuple(name for name in (schema or {}).get("properties") or {} if name != "result")
