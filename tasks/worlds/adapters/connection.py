"""One connection to one MCP server: the official client, which is asynchronous, behind plain calls that end in time.

Each connection has a thread with an event loop of its own, in which the client lives and, for a server of our own, the process that
it started. A connection that has failed is of no further use; the message says what the server did and what to do about it.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import json
import logging
import os
import shutil
import sys
import tempfile
import threading
import weakref
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tasks.worlds.adapters import leash
from tasks.worlds.adapters.foreign import SourceFailed
from tasks.worlds.adapters.server_file import ServerFile, argv
from tasks.worlds.tools import Refused

CLOSE = 8.0
"""Seconds for a server to end; the client closes its input, asks after 2 seconds and forces it after 2 more."""
LAST = 400
"""Characters of what a server wrote last, in messages."""

_open: weakref.WeakSet[Connection] = weakref.WeakSet()


@dataclass(frozen=True)
class Answer:
    """What a tool of a server answered. texts: its text parts. structured: its JSON value, when it gave one."""

    texts: tuple[str, ...]
    structured: Any

    def said(self) -> Any:
        """As the agent reads it: the text, or else the JSON value. Text that is JSON becomes the value, which is shorter."""
        if not self.texts:
            return self.structured
        text = "\n".join(self.texts)
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(text)
            return value if isinstance(value, dict | list) else text
        return text


class Connection:
    """A server in reach. `open` before anything else; `close` in the end, which also happens when the process exits."""

    def __init__(self, about: ServerFile, path: Path) -> None:
        self._about, self._path = about, path
        self.seat = Path(tempfile.mkdtemp(dir=_seats()))
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._client: Any = None
        self._failure: BaseException | None = None
        self._garbage = ""
        self._thread = threading.Thread(target=self._live, name=f"mcp {path}", daemon=True)

    # --- from outside ------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start or reach the server. Raises SourceFailed when it does not answer as an MCP server in time."""
        _open.add(self)
        self._thread.start()
        if not self._ready.wait(self._about.start_seconds):
            self._give_up(f"did not answer within {self._about.start_seconds:g} s when it was started (start_seconds)")
        if self._failure is not None:
            self._give_up(f"cannot be used: {_words(self._failure)}")

    def tools(self) -> list[dict[str, Any]]:
        """Every tool: name, description, input and output schema. Raises SourceFailed."""
        return self._run(self._list(), "the list of its tools")

    def call(self, name: str, arguments: Mapping[str, Any]) -> Answer:
        """Run a tool. Raises Refused with the server's words when it says no, SourceFailed when it does not answer properly."""
        from mcp import MCPError
        from mcp_types import INVALID_PARAMS

        seconds = self._about.call_seconds
        try:
            result = self._run(self._client.call_tool(name, dict(arguments), seconds), f"tool {name!r}", MCPError)
        except MCPError as error:
            if error.code == INVALID_PARAMS:
                raise Refused(error.message) from None
            self._give_up(self._why(error, seconds), f"tool {name!r}")
        texts = tuple(part.text if part.type == "text" else f"[{part.type}]" for part in result.content)
        if result.is_error:
            raise Refused("\n".join(texts) or "the server says that the call failed")
        return Answer(texts, result.structured_content)

    def close(self, wait: bool = True) -> None:
        """End the connection and the server that it started. wait: until it has ended, for at most some seconds."""
        if self._loop is not None and self._task is not None and not self._closing:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._task.cancel)
        self._closing = True
        if wait and self._thread.is_alive():
            self._thread.join(CLOSE)
        if not self._thread.is_alive():
            shutil.rmtree(self.seat, ignore_errors=True)

    # --- in the thread -----------------------------------------------------------------------------------------------------

    def _live(self) -> None:
        try:
            with (self.seat / "stderr.txt").open("w+") as errors:
                asyncio.run(self._serve(errors))
        except BaseException as error:  # whatever ends the thread is told by who waits for it
            self._failure = error
        finally:
            self._ready.set()
            if self._closing:
                shutil.rmtree(self.seat, ignore_errors=True)

    async def _serve(self, errors: Any) -> None:
        from mcp import Client

        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        async with Client(
            self._transport(errors),
            read_timeout_seconds=self._about.start_seconds,
            message_handler=self._heard,
            cache=None,
        ) as client:
            self._client = client
            self._ready.set()
            await asyncio.Event().wait()  # until it is cancelled

    def _transport(self, errors: Any) -> Any:
        from mcp import StdioServerParameters, stdio_client
        from mcp.client.streamable_http import streamable_http_client

        if self._about.url:
            return streamable_http_client(self._about.url, max_sse_event_size=None)
        command = [sys.executable, "-I", "-S", str(leash.__file__), str(os.getpid()), *argv(self._about.command)]
        parameters = StdioServerParameters(command=command[0], args=command[1:], cwd=self._path.parent, env=self.environment())
        return stdio_client(parameters, errlog=errors)

    def environment(self) -> dict[str, str]:
        """What servers and commands are given besides PATH and HOME."""
        passed = {name: os.environ[name] for name in self._about.pass_env if name in os.environ}
        return {**passed, "CAIRN_SEAT": str(self.seat)}

    async def _heard(self, message: Any) -> None:
        """A line that is no message comes as an error; it is kept for the one that waits in vain."""
        if isinstance(message, Exception):
            self._garbage = " ".join(str(message).split())

    async def _list(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor = None
        while True:
            page = await self._client.list_tools(cursor=cursor)
            found += [
                {"name": tool.name, "description": tool.description or "", "input": tool.input_schema, "output": tool.output_schema}
                for tool in page.tools
            ]
            cursor = page.next_cursor
            if not cursor:
                return found

    # --- failing -----------------------------------------------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, Any], what: str, passed: type[Exception] | tuple[()] = ()) -> Any:
        """Do something in the thread and wait for it. Raises SourceFailed, and `passed` as it is."""
        assert self._loop is not None
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result(self._about.call_seconds + CLOSE)
        except passed:
            raise
        except Exception as error:  # whatever the client makes of what the server did
            self._give_up(self._why(error, self._about.call_seconds), what)

    def _why(self, error: Exception, seconds: float) -> str:
        from mcp import MCPError
        from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT
        from pydantic import ValidationError

        code = error.code if isinstance(error, MCPError) else 0
        if code == REQUEST_TIMEOUT or isinstance(error, TimeoutError):
            return f"did not answer within {seconds:g} s; it hangs, or call_seconds is too short"
        if code == CONNECTION_CLOSED or isinstance(error, RuntimeError):
            return "closed the connection; it died"
        if isinstance(error, ValidationError):
            return f"answered what is no MCP ({error.error_count()} mistakes, the first: {error.errors()[0]['msg']})"
        return f"failed: {_words(error)}"

    def _give_up(self, why: str, what: str = "") -> NoReturn:
        """End the connection, and raise SourceFailed. What the server wrote, which may differ from run to run, is a note on it."""
        server = self._about.url or " ".join(self._about.command)
        said = [f"{what + ' of ' if what else ''}the MCP server of {short(self._path)} ({server}) {why}."]
        if self._garbage:
            said.append("It wrote to its standard output what is no JSON-RPC; a server must log to standard error.")
        said.append("Mend or restart the server." if self._about.url else "Run its command by hand to see what it does.")
        failure = SourceFailed(" ".join(said))
        for title, text in (("no JSON-RPC", self._garbage), ("its last words", self._last_words())):
            if text:
                failure.add_note(f"{title}: {_cut(text)}")
        self.close(wait=False)
        raise failure

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            return " ".join((self.seat / "stderr.txt").read_text(errors="replace")[-LAST:].split())
        return ""


def _words(error: BaseException) -> str:
    """What an error says, without the groups that tasks wrap it into."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def short(path: Path) -> str:
    """A file without the place where it lies, for what is kept."""
    return f"{path.parent.name}/{path.name}"


def _cut(text: str) -> str:
    return text if len(text) <= LAST else f"{text[:LAST]} ..."


@functools.cache
def _seats() -> Path:
    """The folder of all seats, also of those in processes that are forked off, which end without a word."""
    folder, owner = Path(tempfile.mkdtemp(prefix="cairn-seats-")), os.getpid()
    atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == owner else None)
    atexit.register(_close_all)  # runs before the other
    return folder


def _close_all() -> None:
    for wait in (False, True):  # all are told before any is waited for
        for connection in list(_open):
            connection.close(wait)


os.register_at_fork(after_in_child=_open.clear)  # they are the parent's, and their threads are not in the child
# The client logs what we tell in our own words.
logging.getLogger("client").addHandler(logging.NullHandler())
logging.getLogger("mcp").addHandler(logging.NullHandler())
