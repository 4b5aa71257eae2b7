"""Reads what is in an MCP server: the state, by a dump or by calls that are named, and answers of tools that must work."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tasks.contract.params import BadInput, nearest
from tasks.contract.values import whole_text
from tasks.worlds.adapters.answers import Answer, refusal
from tasks.worlds.adapters.connection import ToolFailed, short
from tasks.worlds.adapters.foreign_state import SourceFailed
from tasks.worlds.adapters.placeholders import NotSet
from tasks.worlds.adapters.plain_data import NotPlain, View, steps_of
from tasks.worlds.adapters.server_file import Command, ReadCall, ServerFile
from tasks.worlds.adapters.server_pool import Seat
from tasks.worlds.adapters.state_content import Content
from tasks.worlds.adapters.state_rows import StatesByRow
from tasks.worlds.api.state import canonical_json
from tasks.worlds.api.tools import Refused

NO_REASON = "the server says that the call failed, and does not say why"
NOTHING_READ = Content("{}")
"""What is compared of a state of which nothing is read."""
REFUSED = "!refused"
"""Key of what a read says that was refused."""


class Reader:
    """Reads the state by a dump or by calls, and shows it."""

    def __init__(self, server: ServerFile, path: Path, listed: Callable[[], Mapping[str, Any]]) -> None:
        self._server, self._path, self._listed = server, path, listed
        self._states = StatesByRow(View(tuple(server.leave_out), rounded=steps_of(str(path), server.rounded)))
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

    def content(self, seat: Seat) -> Content:
        """What counts of the state in a server."""
        if self._server.dump is not None:
            return self.counted(json.loads(self.dumped(seat, self._server.dump)))
        return self.counted({_label(call): self._answer_of(seat, call) for call in self._calls()}) if self.reads else NOTHING_READ

    def unmet(self) -> dict[str, tuple[str, ...]]:
        """The patterns of leave_out and rounded that nothing has fitted so far (`View.unmet`)."""
        return self._states.view.unmet()

    def counted(self, value: Any) -> Content:
        """What counts of a state."""
        try:
            return self._states.content(value)
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
        reason = as_text(said) if answer.failed else self.refused(said) or self.refused(answer.structured)
        return {REFUSED: reason} if reason or answer.failed else said


def answer_of(seat: Seat, name: str, arguments: dict[str, Any]) -> Answer:
    """What a tool gives when it works; raises Refused when it says that it does not."""
    answer = seat.connection.call(name, arguments)
    if answer.failed:
        raise Refused(as_text(answer.readable()) or NO_REASON)
    return answer


_BARE = {name: os.environ[name] for name in ("HOME", "PATH", "USER", "LANG") if name in os.environ}


def _label(call: ReadCall) -> str:
    return f"{call.tool} {canonical_json(call.arguments)}" if call.arguments else call.tool


def as_text(result: Any) -> str:
    """What a tool said as one text: JSON where it is none."""
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
