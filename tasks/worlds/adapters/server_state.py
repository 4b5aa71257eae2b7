"""How the state in an MCP server is read and brought back: `keeper_of` chooses by the server's file.

Dumped    a tool or command gives the whole state as JSON, another one takes it
Filed     files in the seat are the state
Replayed  a server is started anew, and the calls that have written are made again; what is read of it, by a dump or by calls that
          are named, is compared, and where nothing is read nothing is
Shared    one server behind a url that nothing sets back: all conversations are in the state that it has
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from tasks.contract.params import BadInput, nearest
from tasks.contract.problem import Kind
from tasks.contract.values import whole_text
from tasks.worlds.adapters import state_files
from tasks.worlds.adapters.answers import Answer, refusal
from tasks.worlds.adapters.connection import Put, ToolFailed, short
from tasks.worlds.adapters.foreign_state import Saved, SourceFailed
from tasks.worlds.adapters.placeholders import NotSet
from tasks.worlds.adapters.plain_data import NotPlain, View
from tasks.worlds.adapters.server_file import Command, ReadCall, ServerFile
from tasks.worlds.adapters.server_pool import Seat, Token
from tasks.worlds.api.state import canonical_json
from tasks.worlds.api.tools import Refused

NO_REASON = "the server says that the call failed, and does not say why"
NOTHING_READ = "{}"
"""What is compared of a state of which nothing is read."""
LOCKED_SECONDS = 1.0
"""How long a server may hold its database locked before another one is started on its files; ours."""
REFUSED = "!refused"
"""Key of what a read says that was refused."""


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


class Reader:
    """Reads the state by a dump or by calls, and shows it."""

    def __init__(self, server: ServerFile, path: Path, listed: Callable[[], Mapping[str, Any]]) -> None:
        self._server, self._path, self._listed = server, path, listed
        self._view = View(tuple(server.leave_out))
        self.reads = bool(server.dump or server.reads)

    def names(self) -> None:
        """Raise BadInput for a tool that the file names and the server does not have."""
        named = [(word, getattr(self._server, word)) for word in ("dump", "restore")]
        named += [("reads", call.tool) for call in self._calls()]
        listed = self._listed()
        for word, name in named:
            if isinstance(name, str) and name not in listed:
                known = ", ".join(listed) or "none"
                raise BadInput(f"{self._path}: {word} names {name!r}.{nearest(name, listed)} Tools of the server: {known}.")

    def text(self, seat: Seat) -> str:
        """What counts of the state in a server, as canonical JSON."""
        if self._server.dump is not None:
            return self.counted(json.loads(self.dumped(seat, self._server.dump)))
        return self.counted({_label(call): self._answer_of(seat, call) for call in self._calls()}) if self.reads else NOTHING_READ

    def counted(self, value: Any) -> str:
        """What counts of a state."""
        try:
            return canonical_json(self._view.plain(value))
        except NotPlain as error:
            raise SourceFailed(f"the state of {short(self._path)}: {error}") from None

    def dumped(self, seat: Seat, dump: str | Command) -> str:
        """The state in a server as JSON. Keys keep their order: a tool's answer may show it."""
        what = f"dump of {short(self._path)} ({' '.join(dump.command) if isinstance(dump, Command) else f'tool {dump!r}'})"
        try:
            text = self.ran(dump, seat, "") if isinstance(dump, Command) else _one_text(answer_of(seat, dump, {}))
            value = json.loads(text) if isinstance(text, str) else text
            return whole_text(json.dumps(value, ensure_ascii=False, allow_nan=False))
        except (Refused, ToolFailed) as error:
            raise SourceFailed(f"{what}: refused: {error}. It must work in every state.") from None
        except (ValueError, RecursionError) as error:
            raise SourceFailed(
                f"{what}: gave what is no JSON ({error}): {str(text)[:200]!r}. It must give the whole state as JSON."
            ) from None

    def refused(self, result: Any) -> str:
        """Why an answer that is not flagged says that its call failed; "" when it does not."""
        server = self._server
        return refusal(result, server.error_key, server.errors_begin, server.errors_match)

    def ran(self, command: Command, seat: Seat, stdin: str) -> str:
        """What a dump or restore command prints. Raises SourceFailed when it fails."""
        words, hide = " ".join(command.command), seat.connection.placeholders.hide
        try:
            done = subprocess.run(
                seat.connection.words(command.command),
                input=seat.connection.placeholders.reveal(stdin),
                cwd=self._path.parent,
                env={**_BARE, **seat.connection.environment()},
                capture_output=True,
                text=True,
                timeout=self._server.call_seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise SourceFailed(f"{short(self._path)}: command {words!r} did not end within {self._server.call_seconds:g} s") from None
        except (OSError, UnicodeDecodeError, NotSet) as error:
            raise SourceFailed(f"{short(self._path)}: command {words!r}: {hide(str(error))}") from None
        if done.returncode:
            last = hide(" ".join(done.stderr.split())[-200:])
            raise SourceFailed(f"{short(self._path)}: command {words!r} ended with {done.returncode}: {last}")
        return str(hide(done.stdout))

    def _calls(self) -> list[ReadCall]:
        return [ReadCall(tool=one) if isinstance(one, str) else one for one in self._server.reads]

    def _answer_of(self, seat: Seat, call: ReadCall) -> Any:
        """What a read says. That it says no is a state too, such as after its row was deleted."""
        try:
            answer = seat.connection.call(call.tool, call.arguments)
        except Refused as error:
            return {REFUSED: str(error)}
        except ToolFailed as error:
            raise SourceFailed(f"reads of {short(self._path)} (tool {call.tool!r}): {error}. It must work in every state.") from None
        said = answer.readable()
        reason = _text(said) if answer.failed else self.refused(said) or self.refused(answer.structured)
        return {REFUSED: reason} if reason or answer.failed else said


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
        return Saved(Token(()), self._reader.text(seat))

    def after(self, seat: Seat, saved: Saved, name: str, arguments: Mapping[str, Any], kind: Kind | None) -> Saved:
        """One call more, of a tool that may write; or of one that must not, and has."""
        writes = kind in (None, "write")
        text = self._reader.text(seat) if writes or self._server.check_reads else saved.text
        if not writes and text == saved.text:
            return saved
        call = name, json.dumps(dict(arguments), ensure_ascii=False)
        return Saved(Token((*saved.token.content, call)), text)

    def after_refusal(self, seat: Seat, saved: Saved, kind: Kind | None) -> Token | None:
        """What it held, when what is read of it is still the same; where nothing is read, after tools that do not write."""
        if not self.compared:
            return saved.token if kind not in (None, "write") else None
        return saved.token if self._reader.text(seat) == saved.text else None

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


def answer_of(seat: Seat, name: str, arguments: dict[str, Any]) -> Answer:
    """What a tool gives when it works; raises Refused when it says that it does not."""
    answer = seat.connection.call(name, arguments)
    if answer.failed:
        raise Refused(_text(answer.readable()) or NO_REASON)
    return answer


_BARE = {name: os.environ[name] for name in ("HOME", "PATH", "USER", "LANG") if name in os.environ}


def _label(call: ReadCall) -> str:
    return f"{call.tool} {canonical_json(call.arguments)}" if call.arguments else call.tool


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
