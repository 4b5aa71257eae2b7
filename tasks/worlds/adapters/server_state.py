"""How the state in an MCP server is read and brought back: `keeper_of` chooses by the server's file.

Dumped    a tool or command gives the whole state as JSON, another one takes it
Filed     files in the seat are the state
Replayed  a server is started anew, and the calls that have written are made again; what is read of it, by a dump or by calls that
          are named, is compared, and where nothing is read nothing is
Shared    one server behind a url that nothing sets back: all conversations are in the state that it has
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from tasks.contract.params import BadInput
from tasks.contract.problem import Kind
from tasks.worlds.adapters import state_files
from tasks.worlds.adapters.connection import Put, ToolFailed, short
from tasks.worlds.adapters.foreign_state import Saved, SourceFailed
from tasks.worlds.adapters.server_file import Command, ServerFile
from tasks.worlds.adapters.server_pool import Seat, Token
from tasks.worlds.adapters.server_reading import NOTHING_READ, Reader, answer_of
from tasks.worlds.api.tools import Refused

LOCKED_SECONDS = 1.0
"""How long a server may hold its database locked before another one is started on its files; ours."""


class Keeper(Protocol):
    """Reads the state in servers and brings them to states.

    compared: whether states are compared at all. copied: whether a server can be brought to a state. restarts: whether it is started
    anew for that. All of them raise SourceFailed.
    """

    compared: bool
    copied: bool
    restarts: bool

    def fresh(self, seat: Seat) -> Saved:
        """The state in a server in which nothing was played."""

    def bring(self, seat: Seat, token: Token) -> None:
        """Bring a server to a state."""

    def after(self, seat: Seat, saved: Saved, name: str, arguments: Mapping[str, Any], kind: Kind | None) -> Saved:
        """The state that a call has left, which began in `saved`; `saved` itself where nothing has changed."""

    def after_refusal(self, seat: Seat, saved: Saved, kind: Kind | None) -> Token | None:
        """What a server holds that has refused a call; None when that is not known."""


def keeper_of(server: ServerFile, path: Path, reader: Reader, listed: Callable[[], Mapping[str, Any]]) -> Keeper:
    """The way of this file. listed: the server's tools by name, for those that a file names."""
    if server.files:
        return Filed(server, path, reader)
    if server.restore:
        return Dumped(server, path, reader, listed)
    if server.url:
        return Shared()
    return Replayed(server, path, reader)


class Dumped:
    """By tools or commands that give and take the whole state."""

    compared, copied, restarts = True, True, False

    def __init__(self, server: ServerFile, path: Path, reader: Reader, listed: Callable[[], Mapping[str, Any]]) -> None:
        self._server, self._path, self._reader, self._listed = server, path, reader, listed
        self._argument: tuple[str, bool] | None = None

    def saved(self, dump: str) -> Saved:
        """A state that was dumped, or that stands in a file."""
        return Saved(Token(dump), self._reader.counted(json.loads(dump)))

    def fresh(self, seat: Seat) -> Saved:
        """What it dumps."""
        return self.saved(self._dumped(seat))

    def after(self, seat: Seat, saved: Saved, name: str, arguments: Mapping[str, Any], kind: Kind | None) -> Saved:
        """What it dumps, after tools that may have written."""
        if kind not in (None, "write") and not self._server.check_reads:
            return saved
        dump = self._dumped(seat)
        return saved if dump == saved.token.content else self.saved(dump)

    def after_refusal(self, seat: Seat, saved: Saved, kind: Kind | None) -> Token | None:
        """It is restored before the next call, which costs less than to look."""
        return None

    def bring(self, seat: Seat, token: Token) -> None:
        """Give the dump of that state to the restore tool or command."""
        restore = self._server.restore
        if isinstance(restore, Command):
            self._reader.ran(restore, seat, token.content)
            return
        argument, is_text = self.argument()
        value = token.content if is_text else json.loads(token.content)
        try:
            said = answer_of(seat, str(restore), {argument: value}).readable()
            if reason := self._reader.refused(said):
                raise Refused(reason)
        except (Refused, ToolFailed) as error:
            raise SourceFailed(
                f"restore of {short(self._path)} (tool {restore!r}): refused: {error}. It must take what dump gives."
            ) from None

    def argument(self) -> tuple[str, bool]:
        """The restore tool's argument, and whether it takes the state as text. Raises BadInput."""
        if self._argument is None:
            arguments = self._listed()[str(self._server.restore)]["input"].get("properties") or {}
            named = self._server.restore_argument
            if named not in arguments and (named or len(arguments) != 1):
                known = ", ".join(arguments) or "none"
                raise BadInput(
                    f"{self._path}: restore_argument = {named!r}: tool {self._server.restore!r} has the arguments {known}; name the "
                    "one that takes the state."
                )
            name = named or next(iter(arguments))
            self._argument = name, arguments[name].get("type") == "string"
        return self._argument

    def _dumped(self, seat: Seat) -> str:
        assert self._server.dump is not None  # there is no restore without
        return self._reader.dumped(seat, self._server.dump)


class Filed:
    """By files in the seat."""

    compared, copied = True, True

    def __init__(self, server: ServerFile, path: Path, reader: Reader) -> None:
        self._server, self._path, self._reader = server, path, reader
        self.restarts = server.restart is not False

    def fresh(self, seat: Seat) -> Saved:
        """What its files hold. From now on it is known whether servers go on while they are restored."""
        state = self._contents(seat)
        if self._server.restart is None:
            self.restarts = not state or not all(state_files.is_database(content) for _, content in state)
        return self._saved(seat, state)

    def after(self, seat: Seat, saved: Saved, name: str, arguments: Mapping[str, Any], kind: Kind | None) -> Saved:
        """What its files hold, after tools that may have written."""
        if kind not in (None, "write") and not self._server.check_reads:
            return saved
        state = self._contents(seat)
        return saved if state == saved.token.content else self._saved(seat, state)

    def after_refusal(self, seat: Seat, saved: Saved, kind: Kind | None) -> Token | None:
        """What it held, when its files are still the same."""
        return saved.token if self._contents(seat) == saved.token.content else None

    def bring(self, seat: Seat, token: Token) -> None:
        """Put the files back: into the databases of a server that runs, or before another one starts."""
        now = self._contents(seat)
        if now == token.content and seat.fresh:
            return
        if self.restarts or [name for name, _ in now] != [name for name, _ in token.content]:
            seat.restart(self._put(token))
            return
        try:
            state_files.put_live(token.content, seat.connection.seat, min(LOCKED_SECONDS, self._server.call_seconds))
        except sqlite3.Error:  # the server left a transaction open, so another one starts
            seat.restart(self._put(token))

    def _put(self, token: Token) -> Put:
        return lambda seat, placeholders: state_files.put(token.content, seat, self._server.files, placeholders)

    def _contents(self, seat: Seat) -> state_files.Contents:
        here = seat.connection
        try:
            return state_files.contents(here.seat, self._server.files, here.placeholders, self._server.call_seconds)
        except (state_files.Unreadable, OSError) as error:
            raise SourceFailed(f"files of {short(self._path)}: {here.placeholders.hide(str(error))}.") from None

    def _saved(self, seat: Seat, state: state_files.Contents) -> Saved:
        try:
            return Saved(
                Token(state), self._reader.counted(state_files.as_json(state, self._server.files, seat.connection.placeholders))
            )
        except state_files.Unreadable as error:
            raise SourceFailed(f"files of {short(self._path)}: {error}.") from None


class Replayed:
    """By another server, in which the calls that wrote are made again."""

    copied, restarts = True, True

    def __init__(self, server: ServerFile, path: Path, reader: Reader) -> None:
        self._server, self._path, self._reader = server, path, reader
        self.compared = reader.reads

    def fresh(self, seat: Seat) -> Saved:
        """No call was made."""
        return Saved(Token(()), self._reader.content(seat))

    def after(self, seat: Seat, saved: Saved, name: str, arguments: Mapping[str, Any], kind: Kind | None) -> Saved:
        """One call more, of a tool that may write; or of one that must not, and has."""
        writes = kind in (None, "write")
        content = self._reader.content(seat) if writes or self._server.check_reads else saved.content
        if not writes and content.same(saved.content):
            return saved
        call = name, json.dumps(dict(arguments), ensure_ascii=False)
        return Saved(Token((*saved.token.content, call)), content)

    def after_refusal(self, seat: Seat, saved: Saved, kind: Kind | None) -> Token | None:
        """What it held, when what is read of it is still the same; where nothing is read, after tools that do not write."""
        if not self.compared:
            return saved.token if kind not in (None, "write") else None
        return saved.token if self._reader.content(seat).same(saved.content) else None

    def bring(self, seat: Seat, token: Token) -> None:
        """Start another server, unless nothing was called in this one, and make the calls."""
        if not seat.fresh:
            seat.restart()
        for name, arguments in token.content:
            seat.fresh = False
            try:
                answer_of(seat, name, json.loads(arguments))
            except (Refused, ToolFailed) as error:
                raise SourceFailed(
                    f"{short(self._path)}: tool {name!r} worked, and refuses the same call in a server that was started anew: {error}. "
                    "A server must begin in the same state each time (fixture), and its tools must not depend on clock or chance."
                ) from None


class Shared:
    """A server behind a url that nothing sets back: it is taken as it is."""

    compared, copied, restarts = False, False, False

    def __init__(self) -> None:
        self._saved = Saved(Token(()), NOTHING_READ)

    def fresh(self, seat: Seat) -> Saved:
        """Nothing is read."""
        return self._saved

    def after(self, seat: Seat, saved: Saved, name: str, arguments: Mapping[str, Any], kind: Kind | None) -> Saved:
        """The same: nothing is known of it."""
        return saved

    def after_refusal(self, seat: Seat, saved: Saved, kind: Kind | None) -> Token | None:
        """What it held: nothing else can be known."""
        return saved.token

    def bring(self, seat: Seat, token: Token) -> None:
        """It is taken as it is."""
