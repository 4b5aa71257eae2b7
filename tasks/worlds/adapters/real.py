"""Sources as they really are (`tasks.worlds.adapters.foreign_state.Real`): one object, or one server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tasks.contract.params import BadInput
from tasks.worlds.adapters.connection import Connection, ToolFailed, short
from tasks.worlds.adapters.foreign_state import Saved, SourceFailed
from tasks.worlds.adapters.server_file import ServerFile, without_secrets
from tasks.worlds.adapters.server_pool import Seat

if TYPE_CHECKING:
    from tasks.worlds.adapters.objects import Objects
    from tasks.worlds.adapters.servers import Servers


@dataclass
class RealObject:
    """An object of this process. held: the turn at what objects share, so that no play sets it back meanwhile."""

    where: str
    source: Objects
    live: Any
    lost: str = ""
    held: IO[str] | None = None

    def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """Run a method."""
        return self.source.answer(self.live, name, arguments)

    def state(self) -> Saved:
        """As it is now."""
        try:
            return Saved(None, self.source.content(self.live))
        except BadInput as error:
            raise SourceFailed(str(error)) from None

    def close(self) -> None:
        """Let others have their turn; the object is its maker's."""
        if self.held is not None:
            self.held.close()


class RealServer:
    """One MCP server: behind a url, which is reached anew after a failure, or a process of its own, which is started once: started
    again, it would begin anew and nobody would know what it has forgotten."""

    def __init__(self, source: Servers, server: ServerFile, path: Path) -> None:
        self.where = (
            f"the MCP server at {without_secrets(server.url)}"
            if server.url
            else f"an MCP server, started now: {' '.join(server.command)}"
        )
        if server.url and server.real is None:
            self.where += ", in which `cairn run` plays too and sets the state back (write the real one under `real`)"
        self.lost = ""
        self._source, self._server, self._path = source, server, path
        self._seat = self._opened()

    def _opened(self) -> Seat:
        connection = Connection(self._server, self._path)
        try:
            connection.open()
            listed = {tool["name"]: tool for tool in connection.tools()}
        except SourceFailed as error:
            raise BadInput(f"{self._path}: {error}") from None
        for name, wanted in self._source.offered().items():
            if name not in listed or listed[name]["input"] != wanted["input"]:
                connection.close(wait=False)
                what = "takes other arguments there" if name in listed else "is not there"
                raise BadInput(f"{self._path}: {self.where}: tool {name!r} {what}, so an agent of this world cannot call it.")
        return Seat(lambda put: connection)

    def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """Run a tool."""
        if self.lost and self._server.url:
            self._seat, self.lost = self._reached(), ""
        if self.lost:
            raise SourceFailed(self.lost)
        try:
            said, failure = self._source.read_answer(name, self._seat.connection.call(name, arguments))
        except ToolFailed as error:
            failure = str(error)
        except SourceFailed as error:
            self.lost = str(error)
            raise
        if failure:
            raise SourceFailed(f"tool {name!r} of the MCP server of {short(self._path)}: {failure}")
        return said

    def _reached(self) -> Seat:
        try:
            return self._opened()
        except BadInput as error:
            raise SourceFailed(str(error)) from None

    def state(self) -> Saved:
        """What it dumps."""
        if self.lost or self._server.dump is None:
            raise SourceFailed(self.lost or f"{self._path}: real.dump is not given, so the state of {self.where} cannot be read")
        try:
            return Saved(None, self._source.real_content(self._seat, self._server.dump))
        except SourceFailed as error:
            if self._seat.connection.closed:
                self.lost = str(error)
            raise

    def close(self) -> None:
        """End the connection, and the server that was started for it."""
        self._seat.connection.close()
