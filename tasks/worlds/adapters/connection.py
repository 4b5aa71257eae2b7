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
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, NoReturn

from tasks.contract.values import whole_text
from tasks.worlds.adapters import bound_process
from tasks.worlds.adapters.answers import Answer, answer_of, clear
from tasks.worlds.adapters.foreign_state import SourceFailed
from tasks.worlds.adapters.placeholders import NotSet, Placeholders
from tasks.worlds.adapters.server_file import ServerFile, argv, without_secrets
from tasks.worlds.api.tools import Refused

CLOSE = 8.0
"""Seconds for a server to end; the client closes its input, asks after 2 seconds and forces it after 2 more."""
CONNECT = 30.0
"""Seconds in which a server behind a url must take a connection; that of the client itself."""
LAST = 400
"""Characters of what a server wrote last, in messages."""

Put = Callable[[Path, Placeholders], None]
"""Fills a seat before its server starts."""

_open: weakref.WeakSet[Connection] = weakref.WeakSet()


class ToolFailed(RuntimeError):
    """A tool failed whose server is well. The message says how."""


class Connection:
    """A server in reach. `open` before anything else; `close` in the end, which also happens when the process exits.

    seat: its folder. placeholders: what stands for the seat and for secrets in all that it takes and gives; what `call` and `tools`
    give is shown with them. relisted: the server has said that its tools changed since they were listed. put: fills the seat, over the
    file's fixture.
    """

    def __init__(self, server: ServerFile, path: Path, put: Put | None = None) -> None:
        self._server, self._path, self._put = server, path, put
        self._folder = Path(tempfile.mkdtemp(dir=_seats()))
        self.seat = self._folder / "seat"
        self.placeholders = Placeholders(self.seat)
        self.relisted = False
        self.seat.mkdir()
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._client: Any = None
        self._failure: BaseException | None = None
        self._garbage = ""
        self._waits: asyncio.Future[Any] | None = None
        self._thread = threading.Thread(target=self._live, name=f"mcp {path}", daemon=True)

    # --- from outside ------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start or reach the server. Raises SourceFailed when it does not answer as an MCP server in time, or a variable that the file
        names is not set."""
        self._filled()
        _open.add(self)
        self._thread.start()
        if not self._ready.wait(self._server.start_seconds):
            self._give_up(f"did not answer within {self._server.start_seconds:g} s when it was started (start_seconds)")
        if self._failure is not None:
            self._give_up(f"cannot be used: {_words(self._failure)}")

    def tools(self) -> list[dict[str, Any]]:
        """Every tool: name, description, input and output schema. Raises SourceFailed."""
        self.relisted = False
        return self.placeholders.hide(self._run(self._list(), "the list of its tools"))

    def call(self, name: str, arguments: Mapping[str, Any]) -> Answer:
        """Run a tool. Raises Refused when the server says that the arguments are wrong, `ToolFailed` when it answers with another error
        of the protocol, SourceFailed when it does not answer properly.
        """
        from mcp import MCPError
        from mcp_types import INVALID_PARAMS

        seconds, hide = self._server.call_seconds, self.placeholders.hide
        try:
            taken = self.placeholders.reveal(dict(arguments))
            result = self._run(self._answered(name, taken, seconds), f"tool {name!r}", MCPError)
        except MCPError as error:
            if error.code == INVALID_PARAMS:
                raise Refused(hide(whole_text(error.message))) from None
            if self._alive(error):
                words = _cut(hide(whole_text(error.message)))
                raise ToolFailed(f"it answered with the error {error.code} of the protocol: {words}") from None
            self._give_up(self._why(error, seconds), f"tool {name!r}")
        return answer_of(result, hide)

    def _alive(self, error: Any) -> bool:
        """Whether the server itself answered with this error; the client makes errors of its own when it waits in vain."""
        from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT

        closed = error.code == CONNECTION_CLOSED and (self._server.url or error.message == "Connection closed")
        return error.code != REQUEST_TIMEOUT and not closed

    @property
    def closed(self) -> bool:
        """Whether it is of no further use."""
        return self._closing

    def close(self, wait: bool = True) -> None:
        """End the connection and the server that it started. wait: until it has ended, for at most some seconds."""
        if self._loop is not None and self._task is not None and not self._closing:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._task.cancel)
        self._closing = True
        if wait and self._thread.is_alive():
            self._thread.join(CLOSE)
        if not self._thread.is_alive():
            shutil.rmtree(self._folder, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        """What servers and commands are given besides PATH and HOME."""
        passed = {name: os.environ[name] for name in self._server.pass_env if name in os.environ}
        fill = self.placeholders.fill
        own = {name: fill(value, f"env: {name}") for name, value in self._server.env.items()}
        return {**passed, **own, "CAIRN_SEAT": str(self.seat)}

    def words(self, command: list[str]) -> list[str]:
        """A command as it is run."""
        return [self.placeholders.fill(word, "command") for word in argv(command, self._server.python, self._path.parent)]

    def _filled(self) -> None:
        """The seat with what lies in it before the server starts; and every placeholder of the file, so that it is known."""
        server, fill = self._server, self.placeholders.fill
        try:
            self._command, self._url = self.words(server.command) if server.command else [], fill(server.url, "url")
            self._headers = {name: fill(value, f"headers: {name}") for name, value in server.headers.items()}
            self._environment = self.environment()
            if server.fixture:
                _copy(self._path.parent / server.fixture, self.seat)
            if self._put is not None:
                self._put(self.seat, self.placeholders)
        except NotSet as error:
            raise SourceFailed(f"the MCP server of {short(self._path)}: {error}") from None
        except OSError as error:
            words = self.placeholders.hide(str(error))
            raise SourceFailed(f"the folder of the MCP server of {short(self._path)} cannot be filled: {words}") from None

    # --- in the thread -----------------------------------------------------------------------------------------------------

    def _live(self) -> None:
        try:
            with (self._folder / "stderr.txt").open("w+") as errors:
                asyncio.run(self._serve(errors))
        except BaseException as error:  # whatever ends the thread is told by who waits for it
            self._failure = error
        finally:
            self._ready.set()
            if self._closing:
                shutil.rmtree(self._folder, ignore_errors=True)

    async def _serve(self, errors: Any) -> None:
        from mcp import Client

        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        async with (
            self._http() as http,
            Client(
                self._transport(errors, http),
                read_timeout_seconds=self._server.start_seconds,
                message_handler=self._on_message,
                cache=None,
            ) as client,
        ):
            self._client = client
            client.session.validate_tool_result = _leave_it  # type: ignore[method-assign] # whether an answer fits is looked at by who asked
            self._ready.set()
            await asyncio.Event().wait()  # until it is cancelled

    def _http(self) -> Any:
        """The client of a url that wants the file's headers; None where the usual one does."""
        if not self._headers:
            return contextlib.nullcontext()
        import httpx2

        return httpx2.AsyncClient(headers=self._headers, timeout=httpx2.Timeout(CONNECT, read=self._server.call_seconds + CLOSE))

    def _transport(self, errors: Any, http: Any) -> Any:
        from mcp import StdioServerParameters, stdio_client
        from mcp.client.streamable_http import streamable_http_client

        if self._url:
            return streamable_http_client(self._url, http_client=http, max_sse_event_size=None)
        command = [sys.executable, "-I", "-S", str(bound_process.__file__), str(os.getpid()), *self._command]
        parameters = StdioServerParameters(
            command=command[0],
            args=command[1:],
            cwd=self._path.parent,
            env=self._environment,
            encoding_error_handler="replace",  # bytes that are no text end no connection
        )
        return stdio_client(parameters, errlog=errors)

    async def _on_message(self, message: Any) -> None:
        """A line that is no message comes as an error; it is kept for the one that waits in vain. One that is an answer, in JSON that
        Python reads and the client does not, goes to the one that waits: half a character, which servers leave that cut their texts.
        """
        self.relisted |= getattr(message, "method", "") == "notifications/tools/list_changed"
        if isinstance(message, Exception):
            self._garbage = " ".join(str(message).split())
            answer = _answer_in(message)
            if answer is not None and self._waits is not None and not self._waits.done():
                self._garbage = ""
                self._waits.set_result(answer)

    async def _answered(self, name: str, arguments: dict[str, Any], seconds: float) -> Any:
        """The result of a tool, as the client gives it or out of what the client could not read."""
        from mcp_types import CallToolResult

        self._waits = asyncio.get_running_loop().create_future()
        asked = asyncio.ensure_future(self._client.call_tool(name, arguments, seconds))
        await asyncio.wait({asked, self._waits}, return_when=asyncio.FIRST_COMPLETED)
        if self._waits.done() and not asked.done():
            asked.cancel()
            return CallToolResult.model_validate(self._waits.result())
        return asked.result()

    async def _list(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor = None
        while True:
            page = await self._client.list_tools(cursor=cursor)
            found += [
                {
                    "name": tool.name,
                    "description": tool.description or "",
                    "input": tool.input_schema,
                    "output": tool.output_schema,
                    "read_only": _only_reads(tool.annotations),
                }
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
            return asyncio.run_coroutine_threadsafe(work, self._loop).result(self._server.call_seconds + CLOSE)
        except passed:
            raise
        except Exception as error:  # whatever the client makes of what the server did
            self._give_up(self._why(error, self._server.call_seconds), what)

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
        url, hide = self._server.url, self.placeholders.hide
        server = without_secrets(url) if url else " ".join(self._server.command)
        why = hide(why.replace(self._url, server) if url else why)
        said = [f"{what + ' of ' if what else ''}the MCP server of {short(self._path)} ({server}) {why}."]
        if self._garbage:
            said.append("It wrote to its standard output what is no JSON-RPC; a server must log to standard error.")
        said.append("Mend or restart the server." if url else "Run its command by hand to see what it does.")
        failure = SourceFailed(" ".join(said))
        for title, text in (("no JSON-RPC", self._garbage), ("its last words", self._last_words())):
            if text:
                failure.add_note(f"{title}: {_cut(hide(text))}")
        self.close(wait=False)
        raise failure

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            return " ".join((self._folder / "stderr.txt").read_text(errors="replace")[-LAST:].split())
        return ""


async def _leave_it(name: str, result: Any) -> None:
    """In place of the client's own look at an answer, which takes one that does not fit for a failure of the connection."""


def _answer_in(error: Exception) -> dict[str, Any] | None:
    """The result in a line that the client could not read, made whole; None when it holds none."""
    from pydantic import ValidationError

    line = error.errors()[0]["input"] if isinstance(error, ValidationError) else None
    try:
        message = json.loads(line) if isinstance(line, str) else None
    except (ValueError, RecursionError):
        return None
    result = message.get("result") if isinstance(message, dict) else None
    return clear(result) if isinstance(result, dict) else None


def _words(error: BaseException) -> str:
    """What an error says, without the groups that tasks wrap it into."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def _copy(source: Path, seat: Path) -> None:
    """A file, or what lies in a folder, into the seat."""
    if source.is_dir():
        shutil.copytree(source, seat, dirs_exist_ok=True)
    else:
        shutil.copy(source, seat / source.name)


def short(path: Path) -> str:
    """A file without the place where it lies, for what is kept."""
    return f"{path.parent.name}/{path.name}"


def _only_reads(hints: Any) -> bool | None:
    """What a server says of a tool by its hints, which MCP gives no meaning to where they are missing: that it only reads, that it
    writes (also one that is said to destroy), or nothing."""
    said: bool | None = hints.read_only_hint if hints is not None else None
    return False if said is None and hints is not None and hints.destructive_hint else said


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
