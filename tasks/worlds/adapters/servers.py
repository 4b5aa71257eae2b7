"""Worlds out of MCP servers: their tools are the tools; what their state is, if it is read at all, their file says.

    class Shop(from_mcp(Path(__file__).with_name("mcp.yaml"), name="shop", policy=POLICY)):
        ...

A call takes a server, brings it to the fork's state unless it holds it already (`tasks.worlds.adapters.server_state`), runs the tool
and reads what it has left. Costs, with a small state and a server on the same machine: some milliseconds for each of the three, and a
second or two to start a server, which restoring by another start costs each time. With as many `servers` as there are conversations
in play, restoring falls away. A server behind a url cannot be trusted to hold what it was left with, so there every call restores
first, and the processes of one machine take turns by a lock; one that nothing sets back takes all calls side by side.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.contract.params import BadInput
from tasks.contract.problem import Illustrated, Kind
from tasks.worlds.adapters import server_file
from tasks.worlds.adapters.adapted import Choice, adapted
from tasks.worlds.adapters.answers import Answer
from tasks.worlds.adapters.connection import Connection, ToolFailed, short
from tasks.worlds.adapters.foreign_state import DIFF_LINES, Real, Saved, SourceFailed
from tasks.worlds.adapters.real import RealServer
from tasks.worlds.adapters.schema_dialects import Read, Unreadable, read
from tasks.worlds.adapters.schemas import tool_of_schema, unmet
from tasks.worlds.adapters.server_file import Command, ServerFile
from tasks.worlds.adapters.server_pool import Seat, Seats
from tasks.worlds.adapters.server_reading import NO_REASON, REFUSED, Reader, as_text
from tasks.worlds.adapters.server_state import Dumped, keeper_of
from tasks.worlds.adapters.state_content import Content, text_diff
from tasks.worlds.api.places import location
from tasks.worlds.api.state import Base
from tasks.worlds.api.tools import Refused, Tool

START = "start"


def from_mcp(file: Path | str, *, name: str, policy: str, problems_file: Path | str | None = None) -> type[Any]:
    """A world class over the MCP server that `file` describes (`tasks.worlds.adapters.server_file`). No server is started yet.

    problems_file: problems as JSON lines (`tasks.worlds.adapters.problem_file`). There are no scripted humans: the role needs a model.
    Raises BadInput for a file that says too little or too much; the world's building raises it for a server that does not answer.
    """
    path = Path(file).resolve()
    return world_of(path, server_file.read(path), name, policy, problems_file)


def world_of(path: Path, about: ServerFile, name: str, policy: str, problems_file: Path | str | None = None) -> type[Any]:
    """The world class of `from_mcp`. about: what the file at `path` says, or will say."""
    if problems_file is not None and about.writes is None:
        raise BadInput(f"{path}: writes is missing: problems are counted by what they write. Name the tools, or give writes: [].")
    source = Servers(path, about)
    made = adapted(
        source,
        name=name,
        policy=policy,
        users=about.users,
        problems_file=problems_file,
        writes=about.writes or [],
        where=str(path),
        conventions=about.conventions.declared() if about.conventions else None,
    )
    made.WAITS = True
    made.COMPARED = bool(about.dump or about.reads or about.files)
    made.COPIES = not about.url or about.restore is not None or about.writes == []
    return made


class Servers:
    """A `Source` over the servers of one file."""

    def __init__(self, path: Path, server: ServerFile) -> None:
        self._path, self._server, self._lines = path, server, server_file.lines(path)
        self._reader = Reader(server, path, lambda: self._listed)
        self._keeper = keeper_of(server, path, self._reader, lambda: self._listed)
        alone = bool(server.url) and server.restore is not None
        self._seats = Seats(path, server, self._same_tools, lambda: self._keeper.restarts, alone)
        self._known: dict[str, dict[str, Any]] | None = None
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
            found = self._known = {tool["name"]: tool for tool in seat.connection.tools()}
            return found

    def _same_tools(self, connection: Connection) -> None:
        """Raises SourceFailed when a server offers other tools than the first one did: conversations would be told apart by chance."""
        if self._known is None:
            return
        now = {tool["name"]: tool for tool in connection.tools()}
        names = self._server.tools or list(self._known)
        if changed := [
            name
            for name in dict.fromkeys((*names, *(now if self._server.tools is None else ())))
            if now.get(name) != self._known.get(name)
        ]:
            raise SourceFailed(
                f"the MCP server of {short(self._path)} has changed its tools since this run began: {', '.join(changed)}. Run again, "
                "which freezes the world anew, when the server has its final version."
            )

    @functools.cached_property
    def _tools(self) -> Mapping[str, Tool]:
        server, listed = self._server, self._listed
        self._reader.names()
        if isinstance(self._keeper, Dumped) and isinstance(server.restore, str):
            self._keeper.argument()
        own = [name for name in (server.dump, server.restore) if isinstance(name, str)] if server.tools is None else []
        made = {tool: tuple(kinds) for tool, kinds in server.produces.items()}
        asked = None if server.tools is None else tuple(server.tools)
        choice = Choice(asked, self._writes(own), tuple(server.ends), made, str(self._path))
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

    def _writes(self, own: Iterable[str]) -> tuple[str, ...]:
        """The tools that write: those that the file names, else those that the server says are not read-only."""
        server = self._server
        if server.writes is not None:
            return tuple(server.writes)
        offered = [name for name in self._listed if name not in own and (server.tools is None or name in server.tools)]
        return tuple(name for name in offered if self._listed[name]["read_only"] is False and name not in server.ends)

    def _unchecked(self, name: str) -> tuple[str, ...]:
        """What is not checked about a tool's calls and answers."""
        return (*self._undeclared(name), *self._loose_answers(name))

    def _undeclared(self, name: str) -> tuple[str, ...]:
        server = self._server
        if self._listed[name]["read_only"] is False and server.writes is not None and name not in (*server.writes, *server.ends):
            return ("the server says that it may write, and writes does not name it",)
        return ()

    def _loose_answers(self, name: str) -> tuple[str, ...]:
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
    def _fresh(self) -> Saved:
        """The state of a server in which nothing was played: tools are asked for before anything is."""
        with self._plainly(next((key for key in ("dump", "reads", "files") if key in self._lines), self._reached)) as seat:
            saved = self._keeper.fresh(seat)
            seat.holds = saved.token
            return saved

    def tables(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The start, frozen with the world where it can be given back: later plays begin there, whatever a server would begin with."""
        self._tell_unsure(self.tools())
        start = self._file_start() if self._server.start else self._fresh
        self._prove(start)
        return {START: {"dump": {"state": json.loads(start.token.content)}}} if isinstance(self._keeper, Dumped) else {}

    def _tell_unsure(self, tools: Mapping[str, Tool]) -> None:
        """Log which tools are taken for look-ups because nobody says that they are not, where no state would show it."""
        unsure = [name for name in tools if self._listed[name]["read_only"] is None]
        if unsure and self._server.writes is None and not self._keeper.compared:
            logging.getLogger(__name__).warning(
                "%s: tools that do not say whether they write are taken for look-ups: %s. Name in writes those that do, or give "
                "writes: []; what they change would be seen by other conversations.",
                self._path,
                ", ".join(unsure),
            )

    def _file_start(self) -> Saved:
        place = self._path.parent / self._server.start
        try:
            state = json.loads(place.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BadInput(f"{self._path}: start = {self._server.start!r}: {place} is no JSON file ({error}).") from None
        return self._saved(state)

    def _saved(self, state: Any) -> Saved:
        assert isinstance(self._keeper, Dumped)  # a start is given to a restore
        return self._keeper.saved(json.dumps(state, ensure_ascii=False))

    def _prove(self, start: Saved) -> None:
        """Raise BadInput when a server that is brought to the start is in another state: what is lost there is lost in every play."""
        answers = json.loads(start.text) if self._server.reads else {}
        if refused := [name for name, value in answers.items() if _is_refusal(value)]:
            raise BadInput(
                f"{self._path}:{self._lines['reads']}: reads: refused at the start: {', '.join(refused)}. Read what is there."
            )
        if not self._keeper.compared or self.protected(""):
            return
        key = next(key for key in ("restore", "dump", "reads", "files") if key in self._lines)
        if lost := self.lost_when_restored(start, key):
            told = (
                "must give the state that it took" if key == "restore" else "a server that is started anew must begin in the same state"
            )
            raise BadInput(
                f"{self._path}:{self._lines[key]}: {key}: the start is not the same after it was restored ({lost}): {told}. Mend it, "
                "or name in leave_out what does not count."
            )

    def lost_when_restored(self, saved: Saved, key: str = "restore") -> str:
        """What differs, as text, when a server was brought to a state from another one and is read again; "" when nothing does."""
        with self._plainly(key if key in self._lines else self._reached) as seat:
            seat.fresh = False  # so that it is brought there
            self._keeper.bring(seat, saved.token)
            again = self._keeper.fresh(seat)
            seat.holds = saved.token if again.content.same(saved.content) else None
        return text_diff(saved.content, again.content, DIFF_LINES).replace("\n", "; ")

    def start(self, base: Base) -> Saved:
        """The frozen start, or that of a server that was started."""
        if START not in base.tables:
            return self._fresh
        if self._started is None or self._started[0] is not base:
            self._started = base, self._saved(base.tables[START]["dump"]["state"])
        return self._started[1]

    def call(self, saved: Saved, name: str, arguments: dict[str, Any], kind: Kind | None) -> tuple[Any, Saved]:
        """Run a tool on a server in this state."""
        with self._seats.use(saved.token) as seat:
            untouched = bool(self.protected(name))  # then it is as it is, and only reads come here
            if seat.holds != saved.token and not untouched:
                since = time.monotonic()
                self._keeper.bring(seat, saved.token)
                self._seats.spent(time.monotonic() - since)
            seat.holds, seat.fresh = None, False  # until it is known what the tool has left, also when it fails
            try:
                said, failure = self.read_answer(name, seat.connection.call(name, arguments))
            except ToolFailed as error:
                said, failure = None, str(error)
            except Refused:
                seat.holds = self._keeper.after_refusal(seat, saved, kind)
                raise
            after = saved
            if not failure and not untouched:
                after = self._keeper.after(seat, saved, name, arguments, kind)
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

    def unmet(self) -> dict[str, tuple[str, ...]]:
        """The patterns of leave_out and rounded that nothing has fitted so far (`View.unmet`)."""
        return self._reader.unmet() if self._keeper.compared else {}

    def kept_apart(self) -> str:
        """How the server's state is declared."""
        if self._server.url and not self._server.restore:
            return (
                f"Nothing sets the server of {short(self._path)} back, so each conversation is in the state that others have left. "
                "Name dump, restore and start, or a command that starts a server of its own."
            )
        return (
            f"The servers of {short(self._path)} share what they write to. Let each keep it in {{seat}}, and name how its state is "
            "read (files, dump with restore, or reads)."
        )

    def real(self) -> Real:
        """The server that stands under `real`, or the file's own, as it is found."""
        server = self._server
        if server.real is None and any("{seat}" in word for word in (*server.command, *server.env.values())):
            raise BadInput(
                f"{self._path}: what this server writes lies in {{seat}}, a folder that is gone when it ends. Write the command or url "
                "of the real one under 'real'."
            )
        return RealServer(self, server_file.real(server), self._path)

    def read_answer(self, name: str, answer: Answer) -> tuple[Any, str]:
        """What an agent reads, and what is wrong with it. Raises Refused when the answer is that the call failed."""
        said = answer.readable()
        reason = self._reader.refused(said) or self._reader.refused(answer.structured)
        if answer.failed or reason:
            raise Refused(reason or as_text(said) or NO_REASON)
        promised = self._promised.get(name)
        broken = unmet(promised, answer.structured) if isinstance(promised, Read) else ""
        return (Illustrated(said, answer.images) if answer.images else said), broken

    def real_content(self, seat: Seat, dump: str | Command) -> Content:
        """What counts of the state of a real server."""
        return self._reader.counted(json.loads(self._reader.dumped(seat, dump)))

    @contextlib.contextmanager
    def _plainly(self, key: str) -> Iterator[Seat]:
        """A server before anything is played, when its failure is the user's to mend, at this key of the file."""
        try:
            with self._seats.use(None) as seat:
                yield seat
        except (SourceFailed, Refused) as error:
            raise BadInput(" ".join([f"{self._path}:{self._lines[key]}: {error}", *getattr(error, "__notes__", ())])) from None


def _is_refusal(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {REFUSED}


def _produced(schema: Any) -> tuple[str, ...]:
    """What an answer holds, by its output schema; "result" is how servers wrap what is no object."""
    return tuple(name for name in (schema or {}).get("properties") or {} if name != "result")
